"""Byte-level BPE tokenizers of Qwen's kind: learnt from texts, written as a checkpoint's tokenizer directories."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from omni2_engine.text.tokenizer import BYTES

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPEECH = "<speech>"
SEP = "<sep>"
ROLES = ("system", "user", "assistant")
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if loop.first and message['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Vocabulary:
    """What both tokenizers share: tokens in the order of their ids, merges in that of their ranks."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]

    def id(self, token: str) -> int:
        """Id of a special token or of `<speech>`."""
        return len(self.tokens) + (*SPECIALS, SPEECH).index(token)

    @property
    def size(self) -> int:
        """Ids of the text tokenizer; the speech tokenizer's `<sep>` is the next."""
        return len(self.tokens) + len(SPECIALS) + 1


def train_vocabulary(
    texts: Iterable[str], split: pre_tokenizers.PreTokenizer, merges: int, min_frequency: int
) -> Vocabulary:
    """Learn merges of byte-level BPE; the same texts give the same vocabulary.

    Args:
        texts: to learn from.
        split: cuts texts into words, and turns their bytes into the byte-level alphabet.
        merges: at most.
        min_frequency: of a pair that is merged.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=len(BYTES) + merges,
        min_frequency=min_frequency,
        initial_alphabet=list(BYTES),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    tokens: dict[str, int] = learnt["vocab"]
    pairs = tuple((left, right) for left, right in learnt["merges"])
    return Vocabulary(tuple(sorted(tokens, key=tokens.__getitem__)), pairs)


def write_text_tokenizer(directory: Path, vocabulary: Vocabulary, template: str = CHAT_TEMPLATE) -> None:
    """The language model's tokenizer: the files Qwen's slow tokenizer reads, chat template included."""
    added = {token: vocabulary.id(token) for token in (*SPECIALS, SPEECH)}
    _write(directory, vocabulary, added, {"chat_template": template})


def write_speech_tokenizer(directory: Path, vocabulary: Vocabulary, units: int) -> None:
    """The speech LM's: the same ids, then `<sep>` and `<0>`, `<1>`, … up to `units`."""
    added = {token: vocabulary.id(token) for token in (*SPECIALS, SPEECH)}
    added |= {token: vocabulary.size + i for i, token in enumerate((SEP, *(f"<{unit}>" for unit in range(units))))}
    _write(directory, vocabulary, added, {})


def _write(directory: Path, vocabulary: Vocabulary, added: dict[str, int], more: dict[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    named = {"eos_token": SPECIALS[2], "pad_token": SPECIALS[0], "additional_special_tokens": list(SPECIALS[1:])}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": token, **flags, "special": token in SPECIALS} for token, i in added.items()
        },
        **named,
        "bos_token": None,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": 32768,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        **more,
    }
    merges = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in vocabulary.merges)
    texts = {
        "vocab.json": json.dumps({token: i for i, token in enumerate(vocabulary.tokens)}, ensure_ascii=False),
        "merges.txt": merges,
        "added_tokens.json": json.dumps(added, indent=1),
        "special_tokens_map.json": json.dumps(named, indent=1),
        "tokenizer_config.json": json.dumps(config, indent=1),
    }
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
