"""Sums, differences, products and halves of small numbers, and questions that go on from an answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from omni2_training.domain.item import Item, Kind, Turn, asked, sentence
from omni2_training.domain.numbers import words


@dataclass(frozen=True)
class Operation:
    """How an operation is drawn, computed, asked for and spoken."""

    sign: str
    spoken: str
    draw: Callable[[random.Random], tuple[int, int]]
    result: Callable[[int, int], int]
    cores: tuple[str, ...]


def _difference(rng: random.Random) -> tuple[int, int]:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    return max(a, b), min(a, b)


OPERATIONS = (
    Operation(
        "+",
        "plus",
        lambda rng: (rng.randint(0, 20), rng.randint(0, 20)),
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
        lambda rng: (rng.randint(0, 10), rng.randint(0, 10)),
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


def draw_single(rng: random.Random) -> Item:
    """One sum."""
    operation = rng.choice(OPERATIONS)
    a, b = operation.draw(rng)
    core = rng.choice(operation.cores)
    question, prefix = asked(rng, core.format(a=words(a), b=words(b)))
    turn = Turn(question, spoken_sum(a, operation, b))
    return Item("arithmetic", (f"{a}{operation.sign}{b}",), prefix + core, (turn,))


def draw_follow_up(rng: random.Random) -> Item:
    """A sum, and another on its result."""
    first = draw_single(rng)
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


KINDS = (Kind("arithmetic", draw_single, open=True), Kind("arithmetic again", draw_follow_up, open=True))
