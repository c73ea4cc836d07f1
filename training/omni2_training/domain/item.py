"""One example of the domain: a short conversation, and what decides whether training may see it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass


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
        combinations: what it is about ("7+5"); in an open kind, training sees either all of a combination or nothing.
        phrasing: the wordings it was made from, without what was filled in.
        held: whether one of these wordings is held out.
        turns: the conversation.
    """

    kind: str
    combinations: tuple[str, ...]
    phrasing: str
    held: bool
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of question.

    Args:
        name: as in `Item.kind`.
        draw: makes one item.
        open: new combinations can be answered by what was learnt from others (sums can, capitals cannot), so that
            some are held out; otherwise only wordings are.
        practise: draws exercises in its rule, from more combinations than are ever asked if there are more, so that a
            model learns the rule and not the table; None where there is no rule to learn.
        emphasis: how many times as often it is drawn as its size says.
        turns: of each of its items.
    """

    name: str
    draw: Callable[[random.Random], Item]
    open: bool
    practise: Callable[[random.Random], Item] | None = None
    emphasis: float = 1
    turns: int = 1


def share(text: str) -> float:
    """A number in [0, 1) that only depends on the text: the same split on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
