"""Sentences to say after somebody: where the sounds of English come from that the other kinds lack."""

from __future__ import annotations

import random

from omni2_training.domain.grammar import worded
from omni2_training.domain.item import Item, Kind, Turn
from omni2_training.domain.lexicon import words_of

ADJECTIVES, BEINGS, VERBS, THINGS, PLACES = map(words_of, ("adjectives", "beings", "verbs", "things", "places"))


def plain_sentence(rng: random.Random) -> str:
    """One of a few million sentences of six to nine words, without a capital or a full stop."""
    being, thing, verb = rng.choice(BEINGS), rng.choice(THINGS), rng.choice(VERBS)
    adjective, other = rng.sample(ADJECTIVES, 2)
    place = rng.choice(PLACES)
    return rng.choice(
        (
            f"the {adjective} {being} {verb} the {thing} {place}",
            f"the {being} {verb} the {adjective} {thing} {place}",
            f"the {adjective} {being} {verb} the {other} {thing}",
        )
    )


def draw(rng: random.Random) -> Item:
    """A sentence to be repeated."""
    text = plain_sentence(rng)
    asked = worded(rng, "repeat", plain=True, text=text)
    return Item("repeat", (text,), asked.phrasing, asked.held, (Turn(asked.text, f"T{text[1:]}."),))


KINDS = (Kind("repeat", draw, open=True),)
