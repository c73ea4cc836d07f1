"""How short words are spelled."""

from __future__ import annotations

import random

from omni2_training.domain.item import Item, Kind, Turn, asked
from omni2_training.domain.lexicon import words_of
from omni2_training.domain.numbers import words

SPELLED = words_of("spelled")
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
