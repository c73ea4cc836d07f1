"""One example of the domain: a short conversation, and what decides whether training may see it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

PREFIXES = (
    "",
    "",
    "please tell me ",
    "can you tell me ",
    "could you tell me ",
    "do you know ",
    "tell me ",
    "I would like to know ",
    "hey, ",
    "quick question, ",
)
CALLS = ("", "", "hey, ", "quick question, ", "okay, ")  # the prefixes that stand before anything
ASKING = ("what", "which", "how", "who", "where", "when", "is", "in", "why")  # first words that may follow all others


@dataclass(frozen=True)
class Turn:
    """A spoken question and the answer to it, both as plain sentences without digits."""

    question: str
    answer: str


@dataclass(frozen=True)
class Item:
    """One example.

    Args:
        kind: which generator made it.
        combinations: what it is about ("7+5"); every item that shares one of them is trained on or held out with it.
        phrasing: the question's wording without its combinations; likewise.
        turns: the conversation.
    """

    kind: str
    combinations: tuple[str, ...]
    phrasing: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of question.

    Args:
        name: as in `Item.kind`.
        draw: makes one item.
        open: new combinations can be answered by what was learnt from others (sums can, capitals cannot), so that
            some are held out; otherwise only phrasings are.
        practise: draws exercises in its rule, from more combinations than are ever asked if there are more, so that a
            model learns the rule and not the table; None where there is no rule to learn.
        emphasis: how many times as often it is drawn as its size says; rules take more than tables.
    """

    name: str
    draw: Callable[[random.Random], Item]
    open: bool
    practise: Callable[[random.Random], Item] | None = None
    emphasis: int = 1


def share(text: str) -> float:
    """A number in [0, 1) that only depends on the text: the same split on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def asked(rng: random.Random, core: str) -> tuple[str, str]:
    """A question with a polite prefix or none: (question, prefix). `core` starts in lower case, without a mark."""
    prefix = rng.choice(PREFIXES if core.startswith(ASKING) else CALLS)
    return sentence(prefix + core) + "?", prefix
