"""Capitals and simple facts."""

from __future__ import annotations

import random

from omni2_training.domain.item import Item, Kind, Turn, asked, sentence

CAPITALS = dict(
    pair.split(":")
    for pair in [
        "France:Paris",
        "Spain:Madrid",
        "Italy:Rome",
        "Germany:Berlin",
        "England:London",
        "Ireland:Dublin",
        "Portugal:Lisbon",
        "Austria:Vienna",
        "Poland:Warsaw",
        "Greece:Athens",
        "Norway:Oslo",
        "Sweden:Stockholm",
        "Denmark:Copenhagen",
        "Finland:Helsinki",
        "Russia:Moscow",
        "Turkey:Ankara",
        "Egypt:Cairo",
        "Kenya:Nairobi",
        "Japan:Tokyo",
        "China:Beijing",
        "Cuba:Havana",
        "Peru:Lima",
        "Chile:Santiago",
        "Canada:Ottawa",
        "Mexico:Mexico City",
        "Hungary:Budapest",
        "Scotland:Edinburgh",
        "Belgium:Brussels",
        "the Netherlands:Amsterdam",
        "India:New Delhi",
    ]
)
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

OPPOSITES = dict(
    pair.split(":")
    for pair in [
        "hot:cold",
        "big:small",
        "fast:slow",
        "up:down",
        "day:night",
        "black:white",
        "good:bad",
        "happy:sad",
        "open:closed",
        "old:new",
        "hard:soft",
        "light:dark",
        "wet:dry",
        "left:right",
        "high:low",
        "early:late",
        "full:empty",
        "loud:quiet",
        "long:short",
        "rich:poor",
        "strong:weak",
        "first:last",
        "near:far",
        "young:old",
        "clean:dirty",
        "easy:difficult",
        "summer:winter",
        "north:south",
        "east:west",
        "true:false",
    ]
)
OPPOSITE_CORES = (
    "what is the opposite of {word}",
    "what is the contrary of {word}",
    "what word means the opposite of {word}",
)

SOUNDS = {"cat": "meow", "dog": "woof", "cow": "moo", "duck": "quack", "sheep": "baa", "lion": "roar", "bee": "buzz"}
SOUND_CORES = ("what does a {animal} say", "what sound does a {animal} make", "how does a {animal} go")

COLOURS = {
    "the sky": "blue",
    "grass": "green",
    "snow": "white",
    "a banana": "yellow",
    "coal": "black",
    "blood": "red",
    "an orange": "orange",
    "the sun": "yellow",
    "milk": "white",
    "a tomato": "red",
    "chocolate": "brown",
    "a cherry": "red",
    "a frog": "green",
    "an elephant": "gray",
    "a lemon": "yellow",
}
COLOUR_CORES = (
    "what color is {thing}",
    "which color is {thing}",
    "what is the color of {thing}",
    "what color does {thing} have",
)

# Asked in several ways each: (the questions, the answer).
FACTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("how many legs does a spider have", "how many legs are on a spider"), "A spider has eight legs."),
    (("how many legs does a dog have", "how many legs are on a dog"), "A dog has four legs."),
    (("how many legs does an ant have", "how many legs are on an ant"), "An ant has six legs."),
    (("how many wheels does a car have", "how many wheels are on a car"), "A car has four wheels."),
    (("how many days are in a week", "how many days does a week have"), "A week has seven days."),
    (("how many months are in a year", "how many months does a year have"), "A year has twelve months."),
    (("how many hours are in a day", "how many hours does a day have"), "A day has twenty four hours."),
    (("how many minutes are in an hour", "how many minutes does an hour have"), "An hour has sixty minutes."),
    (("how many seconds are in a minute", "how many seconds does a minute have"), "A minute has sixty seconds."),
    (("what is the largest planet", "which planet is the biggest"), "The largest planet is Jupiter."),
    (("which planet do we live on", "what is the name of our planet"), "We live on planet Earth."),
    (("what is the largest ocean", "which ocean is the biggest"), "The largest ocean is the Pacific."),
    (("what is the highest mountain", "which mountain is the tallest"), "The highest mountain is Mount Everest."),
    (("what is the fastest animal on land", "which animal runs fastest"), "The cheetah is the fastest animal on land."),
    (("what is the largest animal", "which animal is the biggest"), "The blue whale is the largest animal."),
    (("what do bees make", "what is made by bees"), "Bees make honey."),
    (("what do cows give us", "what do we get from cows"), "Cows give us milk."),
    (("what is ice made of", "what is frozen water"), "Ice is frozen water."),
    (("when do leaves fall", "in which season do the leaves fall"), "The leaves fall in autumn."),
    (("when does snow fall", "in which season does it snow"), "It snows in winter."),
    (("where does the sun rise", "where does the sun come up"), "The sun rises in the east."),
    (("where does the sun set", "where does the sun go down"), "The sun sets in the west."),
    (("what do plants need", "what does a plant need"), "Plants need water, air and light."),
    (("how many colors does a rainbow have", "how many colors are in a rainbow"), "A rainbow has seven colors."),
    (("how many sides does a triangle have", "how many sides are in a triangle"), "A triangle has three sides."),
    (("how many sides does a square have", "how many sides are in a square"), "A square has four sides."),
    (("what is the first letter of the alphabet", "which letter comes first"), "The first letter is A."),
    (("what is the last letter of the alphabet", "which letter comes last"), "The last letter is Z."),
    (("how many fingers are on a hand", "how many fingers does a hand have"), "A hand has five fingers."),
    (("what do we breathe", "what do people breathe"), "We breathe air."),
)


def draw_capital(rng: random.Random) -> Item:
    """The capital of a country, or the country of a capital."""
    country, city = rng.choice(tuple(CAPITALS.items()))
    if rng.random() < 0.7:
        core, answer = rng.choice(CAPITAL_CORES), f"The capital of {country} is {city}."
    else:
        core, answer = rng.choice(WHERE_CORES), f"{city} is the capital of {country}."
    question, prefix = asked(rng, core.format(country=country, city=city))
    return Item("capitals", (country,), prefix + core, (Turn(question, answer),))


def draw_capital_again(rng: random.Random) -> Item:
    """A capital, and then another's."""
    (a, city_a), (b, city_b) = rng.sample(tuple(CAPITALS.items()), 2)
    core, again = rng.choice(CAPITAL_CORES), rng.choice(CAPITAL_AGAIN)
    question, _ = asked(rng, core.format(country=a))
    first = Turn(question, f"The capital of {a} is {city_a}.")
    second = Turn(sentence(again.format(country=b)) + "?", f"The capital of {b} is {city_b}.")
    return Item("capitals again", (f"{a},{b}",), again, (first, second))


def draw_opposite(rng: random.Random) -> Item:
    """A word's opposite."""
    word, other = rng.choice(tuple(OPPOSITES.items()))
    core = rng.choice(OPPOSITE_CORES)
    question, prefix = asked(rng, core.format(word=word))
    return Item("opposites", (word,), prefix + core, (Turn(question, f"The opposite of {word} is {other}."),))


def draw_fact(rng: random.Random) -> Item:
    """An animal's voice, a thing's colour, or one of `FACTS`."""
    which = rng.random()
    if which < 0.15:
        animal, sound = rng.choice(tuple(SOUNDS.items()))
        core, key, answer = rng.choice(SOUND_CORES), animal, f"The {animal} says {sound}."
        filled = core.format(animal=animal)
    elif which < 0.4:
        thing, colour = rng.choice(tuple(COLOURS.items()))
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
