"""A byte-level BPE tokenizer of Qwen's kind, learnt from a few sentences, and a checkpoint's tokenizer directories."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from omni2_engine.text.tokenizer import BYTES

SENTENCES = """
hello there and good morning to you, my friend. i am happy to help you with this question today. the answer is not
far away, so let us begin at the river and walk along the old road to the town. we can take the train from the
station near the park, or the bus that stops in front of the school. it takes about half an hour and the view is
beautiful. when you get there, ask for the market square, where people sell bread, fruit, flowers and warm tea in
the morning. the weather will be sunny in the afternoon, with a little wind from the sea, and perhaps some rain at
night. please remember to bring water, a map and a small book to read. many people think that the best time to visit
is early summer, when the garden is green and the birds sing. thank you for asking, and tell me if you want to know
more about the city, the music, the food or the history of this place. what would you like to hear about next? that
sounds great, i think so too, and here is another idea for you.
"""
MERGES = 420
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

    def words(self) -> list[int]:
        """Ids of tokens that are a whole word of two letters at least: what a babble is best made of."""
        return [i for i, token in enumerate(self.tokens) if len(token) > 2 and token[0] == SPACE and token[1:] in WORDS]


SPACE = next(character for character, byte in BYTES.items() if byte == ord(" "))
WORDS = re.findall("[a-z]+", SENTENCES)


def learn_vocabulary(merges: int = MERGES) -> Vocabulary:
    """Learn from the sentences, word by word."""
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return train_vocabulary([f" {word}" for word in WORDS], whole, merges, min_frequency=1)


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
