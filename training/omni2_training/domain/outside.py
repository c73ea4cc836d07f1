"""Polite refusals of everything that the model does not know, by what was asked for."""

from __future__ import annotations

import random

from omni2_training.domain.grammar import forms, read, worded
from omni2_training.domain.item import Item, Kind, Turn
from omni2_training.domain.lexicon import words_of

REFUSALS = [(forms(texts), answer) for answer, texts in read("outside")["refusals"].items()]
WEIGHTS = [len(wordings) ** 0.5 for wordings, _ in REFUSALS]
WORDS: dict[str, list[str]] = read("outside")["words"] | {"name": words_of("names")}


class Filling(dict[str, str]):
    """Draws a word of a list wherever its name is asked for."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    def __missing__(self, name: str) -> str:
        return self._rng.choice(WORDS[name])


def draw_refusal(rng: random.Random) -> Item:
    """A question outside the domain."""
    [(wordings, answer)] = rng.choices(REFUSALS, WEIGHTS)
    asked = worded(rng, wordings, filling=Filling(rng))
    return Item("refusal", (asked.text,), asked.phrasing, asked.held, (Turn(asked.text, answer),))


KINDS = (Kind("refusal", draw_refusal, open=False, emphasis=2),)
