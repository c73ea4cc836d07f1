"""What the read/write loop steers by: R and W, end of text, penalty, `<speech>` and `<sep>` (spec §1, §6)."""

from __future__ import annotations

import re
from pathlib import Path

from omni2_engine.errors import CheckpointError
from omni2_engine.model.config import TokenConfig
from omni2_export.fields import LARGEST, Fields, read_json
from omni2_export.input_files import is_there
from omni2_export.tokenizer_files import load_tokenizer

SPEECH = "<speech>"
SEP = "<sep>"
PAIR = re.compile(r"\s*[(\[]?\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,?\s*[)\]]?\s*")


def read_write(config: Fields) -> tuple[int, int]:
    """R and W from `stream_params`, text such as "(3,10)" or a list of two; nothing is evaluated.

    Raises:
        CheckpointError: it is neither.
    """
    value = config.values.get("stream_params")
    if isinstance(value, str) and (found := PAIR.fullmatch(value)):
        value = [int(found[1]), int(found[2])]
    if isinstance(value, list) and len(value) == 2 and all(type(n) is int and 0 < n <= LARGEST for n in value):
        return value[0], value[1]
    raise config.wrong("stream_params", 'two positive integers R and W, such as "(3,10)"')


def token_config(config: Fields, model: Path, speech_tokenizer: Path, text_rows: int, speech_rows: int) -> TokenConfig:
    """Everything of `TokenConfig`.

    Args:
        config: the model's config.json.
        model: its directory: `generation_config.json`, if there, and the text tokenizer.
        speech_tokenizer: directory of the speech tokenizer.
        text_rows: vocabulary rows of the language model; its ids must be below this.
        speech_rows: likewise of the speech language model.

    Raises:
        CheckpointError: a token or id is missing or out of range.
    """
    # Without the file transformers takes the same fields from config.json.
    path = model / "generation_config.json"
    generation = read_json(path) if is_there(path) else config
    text, speech = load_tokenizer(model), load_tokenizer(speech_tokenizer)
    penalty = generation.number("repetition_penalty", 1.0)
    if penalty <= 0:
        raise generation.wrong("repetition_penalty", "a number above 0")
    eos = _ids(generation) or _ids(config) or ((text.eos,) if text.eos is not None else ())
    if not eos:
        raise config.wrong("eos_token_id", "the id, or list of ids, that ends a text")
    if speech.eos is None:
        raise CheckpointError(f"{speech_tokenizer} names no end token", "its tokenizer_config.json needs `eos_token`")
    speech_id, sep = text.tokenizer.token_id(SPEECH), speech.tokenizer.token_id(SEP)
    if speech_id is None or sep is None:
        where, token = (model, SPEECH) if speech_id is None else (speech_tokenizer, SEP)
        raise CheckpointError(
            f"the tokenizer in {where} has no `{token}`", "use the tokenizer that came with the model"
        )
    for end, rows in (*((end, text_rows) for end in eos), (speech.eos, speech_rows), (sep, speech_rows)):
        if end >= rows:
            raise CheckpointError(
                f"token {end} is beyond its model's vocabulary of {rows} rows",
                "use tokenizers and weights of the same model",
            )
    limit = config.integer("tokenizer_model_max_length", LARGEST, most=2**127)  # "no limit" is written as 1e30
    return TokenConfig(
        eos=eos,
        repetition_penalty=penalty,
        speech=speech_id,
        sep=sep,
        speech_eos=speech.eos,
        context_limit=limit if limit < LARGEST else None,
    )


def _ids(fields: Fields) -> tuple[int, ...]:
    """`eos_token_id`, one or several; empty if it is not there."""
    value = fields.values.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int and 0 <= token <= LARGEST for token in ids):
        raise fields.wrong("eos_token_id", "an id or a list of ids")
    return tuple(dict.fromkeys(ids))
