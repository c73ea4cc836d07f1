"""How short words are spelled."""

from __future__ import annotations

import random

from omni2_training.domain.item import Item, Kind, Turn, asked
from omni2_training.domain.numbers import words

SPELLED = [
    "apple",
    "bird",
    "book",
    "bread",
    "bus",
    "cake",
    "cat",
    "chair",
    "city",
    "clock",
    "cloud",
    "cow",
    "cup",
    "day",
    "dog",
    "door",
    "duck",
    "egg",
    "eye",
    "farm",
    "fish",
    "fly",
    "fox",
    "frog",
    "game",
    "girl",
    "boy",
    "grass",
    "green",
    "hand",
    "hat",
    "horse",
    "house",
    "ice",
    "jam",
    "jump",
    "key",
    "king",
    "kite",
    "lamp",
    "leaf",
    "light",
    "lion",
    "milk",
    "moon",
    "mouse",
    "name",
    "nest",
    "night",
    "nose",
    "ocean",
    "owl",
    "paper",
    "pen",
    "pig",
    "queen",
    "quiet",
    "rain",
    "red",
    "ring",
    "river",
    "road",
    "rose",
    "sand",
    "school",
    "sea",
    "ship",
    "shoe",
    "six",
    "snow",
    "song",
    "star",
    "stone",
    "sun",
    "table",
    "tea",
    "train",
    "tree",
    "van",
    "voice",
    "wall",
    "water",
    "wave",
    "week",
    "wind",
    "window",
    "wolf",
    "yellow",
    "yes",
    "zebra",
    "zoo",
]
CORES = (
    "how do you spell {word}",
    "how is {word} spelled",
    "spell {word}",
    "spell the word {word}",
    "can you spell {word}",
    "what are the letters of {word}",
    "please spell {word} for me",
)
COUNT_CORES = ("how many letters does {word} have", "how many letters are in {word}")


def letters(word: str) -> str:
    """ "C, A, T" """
    return ", ".join(word.upper())


def draw(rng: random.Random) -> Item:
    """The letters of a word, or their number."""
    word = rng.choice(SPELLED)
    if rng.random() < 0.8:
        core, answer = rng.choice(CORES), f"The word {word} is spelled {letters(word)}."
    else:
        core, answer = rng.choice(COUNT_CORES), f"The word {word} has {words(len(word))} letters."
    question, prefix = asked(rng, core.format(word=word))
    return Item("spelling", (word,), prefix + core, (Turn(question, answer),))


KINDS = (Kind("spelling", draw, open=False),)
