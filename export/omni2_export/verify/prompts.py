"""Prompts of golden turns, laid out by the engine's own prompt builder."""

from __future__ import annotations

import re

import numpy as np

from omni2_engine.audio.source import read_audio
from omni2_engine.engine import Engine
from omni2_engine.model.config import WHISPER_SAMPLE_RATE
from omni2_engine.turn.prompt import REPLY_MARK, Exchange, Layout
from omni2_export.verify.compare import FileComparison
from omni2_export.verify.goldens import Golden
from omni2_export.verify.tolerances import DEVIATION

SPEECH_SLOT = -200  # stands for a whole utterance in golden prompt ids (spec §4)


def spoken_exchanges(engine: Engine, utterances: list[Golden]) -> list[Exchange]:
    """Turns of a conversation, each utterance heard by the engine from its golden audio."""
    exchanges: list[Exchange] = []
    pipeline, window = engine.pipeline, engine.config.encoder.samples / WHISPER_SAMPLE_RATE
    for golden in utterances:
        audio = golden["audio16k_i16"].astype(np.int16)
        waveform = read_audio(audio, WHISPER_SAMPLE_RATE, window, "truncate")
        speech = pipeline.encoder(pipeline.frontend(waveform))
        first = exchanges[-1].first_item + exchanges[-1].positions if exchanges else 0
        exchanges.append(Exchange(first, speech=speech))
    return exchanges


def compare_prompt(engine: Engine, exchanges: list[Exchange], compare: FileComparison) -> Layout:
    """Compare prompt text, ids and input embeddings; the answers between turns are read from the golden text.

    Returns:
        The layout; the exchanges have got their replies.
    """
    wanted, tokenizer = compare.golden.text("prompt_text"), engine.pipeline.tokenizer
    pieces = engine.prompts.text(exchanges, None).split(REPLY_MARK)
    found = re.fullmatch("(.*?)".join(map(re.escape, pieces)), wanted, re.DOTALL)
    replies = list(found.groups()) if found else [""] * (len(pieces) - 1)
    for exchange, reply in zip(exchanges, replies, strict=False):
        exchange.reply = tokenizer.encode(reply)
    filled = "".join(piece + reply for piece, reply in zip(pieces, [*replies, ""], strict=True))
    layout = engine.prompts.lay_out(exchanges, None)
    embeds = layout.embeds(0, engine.pipeline.llm.table)[: engine.config.tokens.context_limit]
    compare.same("prompt_text", ("prompt",), filled)
    compare.same("prompt_ids_raw", ("prompt",), tokenizer.encode(wanted))
    compare.same("prompt_ids", ("prompt",), _slots(layout))
    compare.same("n_embeds", ("prompt",), len(embeds))
    compare.close("inputs_embeds", ("prompt", "encoder"), embeds, relative=DEVIATION)
    return layout


def _slots(layout: Layout) -> list[int]:
    """Ids with one `SPEECH_SLOT` for every utterance."""
    first = {-1 - exchange.first_item for exchange in layout.spoken}
    return [SPEECH_SLOT if item < 0 else item for item in layout.items if item >= 0 or item in first]
