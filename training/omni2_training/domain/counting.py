"""Counting up and down, and the neighbours of a number."""

from __future__ import annotations

import random
from functools import partial

from omni2_training.domain.item import Item, Kind, Turn, asked, sentence
from omni2_training.domain.numbers import words

UP_CORES = (
    "count from {a} to {b}",
    "please count from {a} to {b}",
    "can you count from {a} to {b}",
    "count up from {a} to {b}",
    "say the numbers from {a} to {b}",
)
DOWN_CORES = (
    "count down from {a} to {b}",
    "please count backwards from {a} to {b}",
    "can you count down from {a} to {b}",
    "count backwards from {a} to {b}",
)
NEXT_CORES = {
    1: ("what number comes after {a}", "which number is after {a}", "what is the next number after {a}"),
    -1: ("what number comes before {a}", "which number is before {a}", "what is the number before {a}"),
}
LARGER_CORES = (
    "which is larger, {a} or {b}",
    "what is more, {a} or {b}",
    "is {a} or {b} the larger number",
    "which number is bigger, {a} or {b}",
)


def draw_count(rng: random.Random, lowest: int = 20) -> Item:
    """Three to eight numbers in a row, up or down, the least of them at most `lowest`."""
    low, length = rng.randint(0, lowest), rng.randint(3, 8)
    numbers = list(range(low, low + length))
    up = rng.random() < 0.6
    if not up:
        numbers.reverse()
    core = rng.choice(UP_CORES if up else DOWN_CORES)
    question = sentence(core.format(a=words(numbers[0]), b=words(numbers[-1]))) + "."
    answer = sentence(", ".join(map(words, numbers))) + "."
    return Item("counting", (f"{numbers[0]}..{numbers[-1]}",), core, (Turn(question, answer),))


def draw_next(rng: random.Random) -> Item:
    """The number before or after another."""
    step, a = rng.choice((1, -1)), rng.randint(1, 99)
    core = rng.choice(NEXT_CORES[step])
    question, prefix = asked(rng, core.format(a=words(a)))
    answer = f"{'After' if step > 0 else 'Before'} {words(a)} comes {words(a + step)}."
    return Item("next number", (f"{a} {step:+d}",), prefix + core, (Turn(question, answer),))


def draw_larger(rng: random.Random) -> Item:
    """The larger of two numbers."""
    a, b = rng.sample(range(100), 2)
    core = rng.choice(LARGER_CORES)
    question, prefix = asked(rng, core.format(a=words(a), b=words(b)))
    answer = sentence(f"{words(max(a, b))} is larger than {words(min(a, b))}.")
    return Item("larger number", (f"{min(a, b)}<{max(a, b)}",), prefix + core, (Turn(question, answer),))


KINDS = (
    Kind("counting", draw_count, open=True, practise=partial(draw_count, lowest=90), emphasis=2),
    Kind("next number", draw_next, open=True),
    Kind("larger number", draw_larger, open=True, practise=draw_larger, emphasis=4),
)
