"""Capitals and simple facts."""

from __future__ import annotations

import random

from omni2_training.domain.item import Item, Kind, Turn, asked, sentence
from omni2_training.domain.lexicon import answers_of, pairs_of

CAPITALS, OPPOSITES, SOUNDS, COLOURS = map(pairs_of, ("capitals", "opposites", "sounds", "colours"))
FACTS = answers_of("facts")
CAPITAL_CORES = (
    "what is the capital of {country}",
    "which city is the capital of {country}",
    "what is the capital city of {country}",
    "name the capital of {country}",
    "what city is the capital of {country}",
)
CAPITAL_AGAIN = ("and of {country}", "and the capital of {country}", "what about {country}", "and what about {country}")
WHERE_CORES = (
    "which country has the capital {city}",
    "{city} is the capital of which country",
    "what country is {city} the capital of",
)

OPPOSITE_CORES = (
    "what is the opposite of {word}",
    "what is the contrary of {word}",
    "what word means the opposite of {word}",
)

SOUND_CORES = ("what does a {animal} say", "what sound does a {animal} make", "how does a {animal} go")

COLOUR_CORES = (
    "what color is {thing}",
    "which color is {thing}",
    "what is the color of {thing}",
    "what color does {thing} have",
)


def draw_capital(rng: random.Random) -> Item:
    """The capital of a country, or the country of a capital."""
    country, city = rng.choice(CAPITALS)
    if rng.random() < 0.7:
        core, answer = rng.choice(CAPITAL_CORES), f"The capital of {country} is {city}."
    else:
        core, answer = rng.choice(WHERE_CORES), f"{city} is the capital of {country}."
    question, prefix = asked(rng, core.format(country=country, city=city))
    return Item("capitals", (country,), prefix + core, (Turn(question, answer),))


def draw_capital_again(rng: random.Random) -> Item:
    """A capital, and then another's."""
    (a, city_a), (b, city_b) = rng.sample(CAPITALS, 2)
    core, again = rng.choice(CAPITAL_CORES), rng.choice(CAPITAL_AGAIN)
    question, _ = asked(rng, core.format(country=a))
    first = Turn(question, f"The capital of {a} is {city_a}.")
    second = Turn(sentence(again.format(country=b)) + "?", f"The capital of {b} is {city_b}.")
    return Item("capitals again", (f"{a},{b}",), again, (first, second))


def draw_opposite(rng: random.Random) -> Item:
    """A word's opposite."""
    word, other = rng.choice(OPPOSITES)
    core = rng.choice(OPPOSITE_CORES)
    question, prefix = asked(rng, core.format(word=word))
    return Item("opposites", (word,), prefix + core, (Turn(question, f"The opposite of {word} is {other}."),))


def draw_fact(rng: random.Random) -> Item:
    """An animal's voice, a thing's colour, or another fact."""
    which = rng.random()
    if which < 0.15:
        animal, sound = rng.choice(SOUNDS)
        core, key, answer = rng.choice(SOUND_CORES), animal, f"The {animal} says {sound}."
        filled = core.format(animal=animal)
    elif which < 0.4:
        thing, colour = rng.choice(COLOURS)
        core, key, answer = rng.choice(COLOUR_CORES), thing, sentence(f"{thing} is {colour}.")
        filled = core.format(thing=thing)
    else:
        cores, answer = rng.choice(FACTS)
        core = filled = rng.choice(cores)
        key = answer
    question, prefix = asked(rng, filled)
    return Item("facts", (key,), prefix + core, (Turn(question, answer),))


KINDS = (
    Kind("capitals", draw_capital, open=False),
    Kind("capitals again", draw_capital_again, open=True),
    Kind("opposites", draw_opposite, open=False),
    Kind("facts", draw_fact, open=False),
)
