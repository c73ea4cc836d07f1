"""Greetings and small talk."""

from __future__ import annotations

import random

from omni2_training.domain.grammar import SAID, lines, read, worded
from omni2_training.domain.item import Item, Kind, Turn
from omni2_training.domain.lexicon import words_of

TALK = [(lines(text, SAID), answer) for answer, text in read("talk").items()]
WEIGHTS = [len(wordings) ** 0.5 for wordings, _ in TALK]
NAMES = words_of("names")
COMMON = (
    "Hello! How can I help you?",
    "Good morning! How can I help you?",
    "Good evening! How can I help you?",
    "Goodbye! See you soon.",
    "I am fine, thank you. And how are you?",
    "My name is Omni, and I am a small demo.",
    "I can count, spell, add numbers and name capitals.",
    "I am a computer program.",
    "Yes, I can hear you.",
    "You are welcome.",
    "Thank you, that is kind.",
)  # answers to what everybody says to an assistant
FIRST = 14  # lines of their lists: those come first that are said most


def draw_talk(rng: random.Random) -> Item:
    """A greeting or small talk; what is said in more ways comes more often."""
    [(wordings, answer)] = rng.choices(TALK, WEIGHTS)
    asked = worded(rng, wordings, plain=rng.random() < 0.8, name=rng.choice(NAMES))
    return Item("talk", (answer,), asked.phrasing, asked.held, (Turn(asked.text, answer),))


def draw_common(rng: random.Random) -> Item:
    """A greeting, thanks, a farewell or a question about the assistant, in one of its usual wordings."""
    answer = rng.choice(COMMON)
    wordings = next(wordings for wordings, other in TALK if other == answer)
    usual = tuple(wording for wording in wordings[:FIRST] if not wording.held)
    asked = worded(rng, usual, plain=True, name=rng.choice(NAMES))
    return Item("talk", (answer,), asked.phrasing, asked.held, (Turn(asked.text, answer),))


KINDS = (Kind("talk", draw_talk, open=False, emphasis=2.5),)
