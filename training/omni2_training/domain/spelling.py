"""How short words are spelled."""

from __future__ import annotations

import random

from omni2_training.domain.grammar import worded
from omni2_training.domain.item import Item, Kind, Turn
from omni2_training.domain.lexicon import words_of
from omni2_training.domain.numbers import words

SPELLED = words_of("spelled")
LETTERS = 0.8  # share of the questions for all letters


def letters(word: str) -> str:
    """ "C, A, T" """
    return ", ".join(word.upper())


def draw(rng: random.Random) -> Item:
    """The letters of a word, the first or last of them, or their number."""
    word = rng.choice(SPELLED)
    if rng.random() < LETTERS:
        asked, answer = worded(rng, "spell", word=word), f"The word {word} is spelled {letters(word)}."
    else:
        way = rng.choice(("letters of", "letter of", "last letter of"))
        asked = worded(rng, way, word=word)
        answer = {
            "letters of": f"The word {word} has {words(len(word))} letters.",
            "letter of": f"The first letter of {word} is {word[0].upper()}.",
            "last letter of": f"The last letter of {word} is {word[-1].upper()}.",
        }[way]
    return Item("spelling", (word,), asked.phrasing, asked.held, (Turn(asked.text, answer),))


KINDS = (Kind("spelling", draw, open=False, emphasis=1.5),)
