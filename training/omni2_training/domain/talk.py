"""Greetings and small talk."""

from __future__ import annotations

import random

from omni2_training.domain.grammar import SAID, lines, read, worded
from omni2_training.domain.item import Item, Kind, Turn
from omni2_training.domain.lexicon import words_of

TALK = [(lines(text, SAID), answer) for answer, text in read("talk").items()]
WEIGHTS = [len(wordings) ** 0.5 for wordings, _ in TALK]
NAMES = words_of("names")


def draw_talk(rng: random.Random) -> Item:
    """A greeting or small talk; what is said in more ways comes more often."""
    [(wordings, answer)] = rng.choices(TALK, WEIGHTS)
    asked = worded(rng, wordings, plain=rng.random() < 0.8, name=rng.choice(NAMES))
    return Item("talk", (answer,), asked.phrasing, asked.held, (Turn(asked.text, answer),))


KINDS = (Kind("talk", draw_talk, open=False, emphasis=2.5),)
