"""Sums, differences, products and halves of small numbers, and questions that go on from an answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from omni2_training.domain.item import Item, Kind, Turn, asked, sentence
from omni2_training.domain.numbers import words


@dataclass(frozen=True)
class Operation:
    """How an operation is drawn, with numbers of at most `most`, computed, asked for and spoken."""

    sign: str
    spoken: str
    draw: Callable[[random.Random, int], tuple[int, int]]
    most: int
    result: Callable[[int, int], int]
    cores: tuple[str, ...]


def _difference(rng: random.Random, most: int) -> tuple[int, int]:
    a, b = rng.randint(0, most), rng.randint(0, most)
    return max(a, b), min(a, b)


OPERATIONS = (
    Operation(
        "+",
        "plus",
        lambda rng, most: (rng.randint(0, most), rng.randint(0, most)),
        20,
        lambda a, b: a + b,
        (
            "what is {a} plus {b}",
            "how much is {a} plus {b}",
            "what is the sum of {a} and {b}",
            "what do you get when you add {a} and {b}",
            "what is {a} and {b} together",
            "{a} plus {b}",
            "what does {a} plus {b} make",
        ),
    ),
    Operation(
        "-",
        "minus",
        _difference,
        20,
        lambda a, b: a - b,
        (
            "what is {a} minus {b}",
            "how much is {a} minus {b}",
            "what is {a} take away {b}",
            "what is left of {a} without {b}",
            "{a} minus {b}",
            "what do you get when you take {b} from {a}",
        ),
    ),
    Operation(
        "*",
        "times",
        lambda rng, most: (rng.randint(0, most), rng.randint(0, most)),
        10,
        lambda a, b: a * b,
        (
            "what is {a} times {b}",
            "how much is {a} times {b}",
            "what is {a} multiplied by {b}",
            "what is the product of {a} and {b}",
            "{a} times {b}",
            "what do you get when you multiply {a} by {b}",
        ),
    ),
)
FOLLOW_UPS = ("and {spoken} {b}", "and what is that {spoken} {b}", "what about {spoken} {b}", "now {spoken} {b}")


def spoken_sum(a: int, operation: Operation, b: int) -> str:
    """ "Seven plus five is twelve." """
    return sentence(f"{words(a)} {operation.spoken} {words(b)} is {words(operation.result(a, b))}.")


def draw_single(rng: random.Random, wide: bool = False) -> Item:
    """One sum; a wide one has numbers up to twice as large."""
    operation = rng.choice(OPERATIONS)
    a, b = operation.draw(rng, operation.most * (2 if wide else 1))
    core = rng.choice(operation.cores)
    question, prefix = asked(rng, core.format(a=words(a), b=words(b)))
    turn = Turn(question, spoken_sum(a, operation, b))
    return Item("arithmetic", (f"{a}{operation.sign}{b}",), prefix + core, (turn,))


def draw_follow_up(rng: random.Random, wide: bool = False) -> Item:
    """A sum, and another on its result."""
    first = draw_single(rng, wide)
    [combination] = first.combinations
    sign = next(o.sign for o in OPERATIONS if o.sign in combination)
    a, b = map(int, combination.split(sign))
    result = next(o for o in OPERATIONS if o.sign == sign).result(a, b)
    fitting = [o for o in OPERATIONS if o.sign != "*" or result <= 10]
    operation = rng.choice(fitting)
    most = 10 if operation.sign != "-" else min(result, 10)
    c = rng.randint(0, most)
    core = rng.choice(FOLLOW_UPS)
    question = sentence(core.format(spoken=operation.spoken, b=words(c))) + "?"
    turns = (*first.turns, Turn(question, spoken_sum(result, operation, c)))
    return Item("arithmetic again", (combination, f"{result}{operation.sign}{c}"), core, turns)


KINDS = (
    Kind("arithmetic", draw_single, open=True, practise=partial(draw_single, wide=True), emphasis=2),
    Kind("arithmetic again", draw_follow_up, open=True, practise=partial(draw_follow_up, wide=True), emphasis=2),
)
