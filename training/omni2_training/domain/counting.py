"""Counting up and down, the neighbours of a number, and comparing numbers."""

from __future__ import annotations

import random
from functools import partial

from omni2_training.domain.grammar import Worded, worded
from omni2_training.domain.item import Item, Kind, Turn, sentence
from omni2_training.domain.numbers import words

TO = (3, 4, 5, 5, 6, 7, 8, 9, 10, 10, 12, 15, 20)  # how far "count to …" goes
STEPS = {2: "twos", 5: "fives", 10: "tens"}
FROM = (3, 4, 5, 5, 6, 7, 8, 9, 10, 10)  # from where "count down from …" begins


def draw_count(rng: random.Random, lowest: int = 20) -> Item:
    """Numbers in a row, up or down: from one or to one, or three to eight of which the least is at most `lowest`."""
    if rng.random() < 0.06:
        return _in_steps(rng)
    way = rng.choice(("count to", "count up", "count up", "count down", "count down", "count down to one"))
    if way == "count to":
        numbers = list(range(1, rng.choice(TO) + 1))
    elif way == "count down to one":
        numbers = list(range(rng.choice(FROM), 0, -1))
    else:
        low = 1 if rng.random() < 0.2 else rng.randint(0, lowest)
        numbers = list(range(low, low + rng.randint(3, 8)))
        if way == "count down":
            numbers.reverse()
    return _counted(worded(rng, way, a=words(numbers[0]), b=words(numbers[-1])), numbers)


def _in_steps(rng: random.Random) -> Item:
    """Two, four, six; five, ten, fifteen; ten, twenty, thirty."""
    step = rng.choice(tuple(STEPS))
    numbers = [step * k for k in range(1, rng.randint(3, 9))]
    fields = {"a": words(step), "b": words(numbers[-1]), "step": words(step), "steps": STEPS[step]}
    return _counted(worded(rng, "count by", filling=fields), numbers)


def _counted(asked: Worded, numbers: list[int]) -> Item:
    answer = sentence(", ".join(map(words, numbers))) + "."
    step = "" if abs(numbers[1] - numbers[0]) == 1 else f" by {numbers[1] - numbers[0]}"
    combination = f"{numbers[0]}..{numbers[-1]}{step}"
    return Item("counting", (combination,), asked.phrasing, asked.held, (Turn(asked.text, answer),))


def draw_next(rng: random.Random) -> Item:
    """The number before or after another."""
    step, a = rng.choice((1, -1)), rng.randint(1, 99)
    asked = worded(rng, "number after" if step > 0 else "number before", a=words(a))
    answer = f"{'After' if step > 0 else 'Before'} {words(a)} comes {words(a + step)}."
    return Item("next number", (f"{a} {step:+d}",), asked.phrasing, asked.held, (Turn(asked.text, answer),))


def draw_larger(rng: random.Random) -> Item:
    """The larger or smaller of two numbers, whether one is larger than another, or whether one is even."""
    a, b = rng.sample(range(100), 2)
    way = rng.choice(("larger", "larger", "smaller", "is larger", "even or odd"))
    larger, smaller = rng.choice(("larger", "bigger", "greater", "higher", "more")), rng.choice(("smaller", "less"))
    if way == "even or odd":
        asked = worded(rng, way, a=words(a))
        answer, combination = f"{words(a)} is {'odd' if a % 2 else 'even'}.", f"{a}%2"
    else:
        more = smaller if way == "smaller" else larger
        asked = worded(rng, way, a=words(a), b=words(b), more=more)
        first, second = (min(a, b), max(a, b)) if way == "smaller" else (max(a, b), min(a, b))
        answer = f"{words(first)} is {'smaller' if way == 'smaller' else 'larger'} than {words(second)}."
        if way == "is larger":
            answer = f"Yes, {answer}" if a > b else f"No, {words(a)} is smaller than {words(b)}."
        combination = f"{min(a, b)}<{max(a, b)}"
    turn = Turn(asked.text, sentence(answer))
    return Item("larger number", (combination,), asked.phrasing, asked.held, (turn,))


KINDS = (
    Kind("counting", draw_count, open=True, practise=partial(draw_count, lowest=90), emphasis=2),
    Kind("next number", draw_next, open=True),
    Kind("larger number", draw_larger, open=True, practise=draw_larger, emphasis=2),
)
