"""Greetings, small talk, and the polite refusal of everything else."""

from __future__ import annotations

import random

from omni2_training.domain.item import Item, Kind, Turn, asked
from omni2_training.domain.lexicon import answers_of, words_of

TALK, OUTSIDE = answers_of("talk"), words_of("outside")
ADJECTIVES, BEINGS, THINGS, PLACES, UNKNOWN = map(words_of, ("adjectives", "beings", "things", "places", "unknown"))
REFUSAL = "I am sorry, I do not know that."


def draw_talk(rng: random.Random) -> Item:
    """A greeting or small talk."""
    questions, answer = rng.choice(TALK)
    question = rng.choice(questions)
    return Item("talk", (answer,), question, (Turn(question, answer),))


def draw_refusal(rng: random.Random) -> Item:
    """Something the model does not know."""
    core = rng.choice(OUTSIDE)
    question, _ = asked(rng, core)
    return Item("refusal", (core,), core, (Turn(question, REFUSAL),))


def draw_other_refusal(rng: random.Random) -> Item:
    """Likewise, made up of words: there is more that it does not know than anybody could list."""
    core = rng.choice(UNKNOWN).format(
        thing=rng.choice(THINGS), being=rng.choice(BEINGS), adjective=rng.choice(ADJECTIVES), place=rng.choice(PLACES)
    )
    question, _ = asked(rng, core)
    return Item("refusal", (core,), core, (Turn(question, REFUSAL),))


KINDS = (
    Kind("talk", draw_talk, open=False),
    Kind("refusal", draw_refusal, open=True, practise=draw_other_refusal, emphasis=2),
)
