"""Questions as they are typed: sloppier than they are spoken, numbers in digits."""

from __future__ import annotations

import random
import re

from omni2_training.domain.item import sentence
from omni2_training.domain.numbers import in_digits

LOWER, UNMARKED, DIGITS, SIGNED = 0.4, 0.4, 0.5, 0.4  # shares
SIGNS = {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}
SUM = re.compile(rf"(?<=\d) ({'|'.join(SIGNS)}) (?=\d)")


def typed(question: str, rng: random.Random) -> str:
    """The question in one of the ways in which it may be typed."""
    text = question
    if rng.random() < DIGITS:
        text = sentence(in_digits(text if text.startswith("I") else text[:1].lower() + text[1:]))
        if rng.random() < SIGNED:
            text = SUM.sub(lambda match: f" {SIGNS[match[1]]} ", text)
    if rng.random() < LOWER:
        text = text.lower()
    if rng.random() < UNMARKED:
        text = text.rstrip(".?!")
    return text
