"""Capitals and simple facts."""

from __future__ import annotations

import random

from omni2_training.domain.grammar import QUESTION, lines, read, worded
from omni2_training.domain.item import Item, Kind, Turn, sentence
from omni2_training.domain.lexicon import pairs_of

CAPITALS, OPPOSITES, SOUNDS, COLOURS = map(pairs_of, ("capitals", "opposites", "sounds", "colours"))
FACTS = [(lines(text, QUESTION), answer) for answer, text in read("words")["facts"].items()]


def draw_capital(rng: random.Random) -> Item:
    """The capital of a country, the country of a capital, or whether they belong together."""
    country, city = rng.choice(CAPITALS)
    way = rng.choice(("capital", "capital", "capital", "country of", "country of", "is capital"))
    answer = f"The capital of {country} is {city}." if way == "capital" else f"{city} is the capital of {country}."
    asked_city = city
    if way == "is capital":
        answer = f"Yes, {answer}"
        if rng.random() < 0.5:
            asked_city = rng.choice([other for _, other in CAPITALS if other != city])
            answer = f"No, the capital of {country} is {city}."
    asked = worded(rng, way, country=country, city=asked_city)
    return Item("capitals", (country,), asked.phrasing, asked.held, (Turn(asked.text, answer),))


def draw_capital_again(rng: random.Random) -> Item:
    """A capital, and then another's."""
    (a, city_a), (b, city_b) = rng.sample(CAPITALS, 2)
    asked, again = worded(rng, "capital", country=a), worded(rng, "and of", plain=True, country=b)
    first = Turn(asked.text, f"The capital of {a} is {city_a}.")
    second = Turn(again.text, f"The capital of {b} is {city_b}.")
    phrasing = f"{asked.phrasing} > {again.phrasing}"
    return Item("capitals again", (f"{a},{b}",), phrasing, asked.held or again.held, (first, second))


def draw_opposite(rng: random.Random) -> Item:
    """A word's opposite."""
    word, other = rng.choice(OPPOSITES)
    asked = worded(rng, "opposite", word=word)
    turn = Turn(asked.text, f"The opposite of {word} is {other}.")
    return Item("opposites", (word,), asked.phrasing, asked.held, (turn,))


def draw_fact(rng: random.Random) -> Item:
    """An animal's voice, a thing's colour, or another fact."""
    which = rng.random()
    if which < 0.1:
        animal, sound = rng.choice(SOUNDS)
        asked, key, answer = worded(rng, "sound", animal=animal), animal, f"The {animal} says {sound}."
    elif which < 0.25:
        thing, colour = rng.choice(COLOURS)
        asked, key, answer = worded(rng, "colour", thing=thing), thing, sentence(f"{thing} is {colour}.")
    else:
        wordings, answer = rng.choice(FACTS)
        asked, key = worded(rng, wordings), answer
    return Item("facts", (key,), asked.phrasing, asked.held, (Turn(asked.text, answer),))


KINDS = (
    Kind("capitals", draw_capital, open=False, emphasis=1.5),
    Kind("capitals again", draw_capital_again, open=True, turns=2),
    Kind("opposites", draw_opposite, open=False),
    Kind("facts", draw_fact, open=False, emphasis=1.5),
)
