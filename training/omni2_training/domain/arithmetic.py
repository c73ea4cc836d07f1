"""Sums, differences, products and quotients of small numbers, stories about them, and questions that go on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from omni2_training.domain.grammar import Worded, worded
from omni2_training.domain.item import Item, Kind, Turn, sentence
from omni2_training.domain.lexicon import words_of
from omni2_training.domain.numbers import words

COUNTED, NAMES = words_of("counted"), words_of("names")


@dataclass(frozen=True)
class Operation:
    """How an operation is drawn, with numbers of at most `most`, computed and spoken."""

    sign: str
    spoken: str
    draw: Callable[[random.Random, int], tuple[int, int]]
    most: int
    result: Callable[[int, int], int]


def _difference(rng: random.Random, most: int) -> tuple[int, int]:
    a, b = rng.randint(0, most), rng.randint(0, most)
    return max(a, b), min(a, b)


def _quotient(rng: random.Random, most: int) -> tuple[int, int]:
    divisor = rng.randint(1, most)
    return divisor * rng.randint(0, most), divisor


PLUS = Operation("+", "plus", lambda rng, most: (rng.randint(0, most), rng.randint(0, most)), 20, lambda a, b: a + b)
MINUS = Operation("-", "minus", _difference, 20, lambda a, b: a - b)
TIMES = Operation("*", "times", lambda rng, most: (rng.randint(0, most), rng.randint(0, most)), 10, lambda a, b: a * b)
DIVIDED = Operation("/", "divided by", _quotient, 10, lambda a, b: a // b)
OPERATIONS = (PLUS, MINUS, TIMES, DIVIDED)
INTENTS = {PLUS: "plus", MINUS: "minus", TIMES: "times", DIVIDED: "divided"}
SPECIAL = 0.12  # share of sums that are asked for in words of their own: "double seven"
FOLLOWED = 1 / 3  # share of the follow-ups whose first sum is a story


def spoken_sum(a: int, operation: Operation, b: int) -> str:
    """ "Seven plus five is twelve." """
    return sentence(f"{words(a)} {operation.spoken} {words(b)} is {words(operation.result(a, b))}.")


def draw_single(rng: random.Random, wide: bool = False) -> Item:
    """One sum; a wide one has numbers up to twice as large."""
    operation = rng.choice(OPERATIONS)
    most = operation.most * (2 if wide else 1)
    a, b = operation.draw(rng, most)
    if rng.random() < SPECIAL:
        intent, a, operation, b = rng.choice(
            (
                ("double", 2, TIMES, rng.randint(0, most)),
                ("half", 2 * rng.randint(1, most), DIVIDED, 2),
                ("one more", rng.randint(0, 60), PLUS, 1),
                ("one less", rng.randint(1, 60), MINUS, 1),
            )
        )
    else:
        intent = INTENTS[operation]
    return _item("arithmetic", worded(rng, intent, a=words(a), b=words(b)), a, operation, b)


def draw_story(rng: random.Random, wide: bool = False) -> Item:
    """A sum with things in it: "I have ten apples and eat three. How many are left?" """
    operation = rng.choice((PLUS, PLUS, MINUS, MINUS, TIMES, DIVIDED))
    most = operation.most * (2 if wide else 1)
    a, b = operation.draw(rng, most)
    while b < 1 or a < 2:
        a, b = operation.draw(rng, most)
    name, other = rng.sample(NAMES, 2)
    fields = {"a": words(a), "b": words(b), "things": rng.choice(COUNTED), "name": name, "other": other}
    return _item("story", worded(rng, f"{INTENTS[operation]} story", **fields), a, operation, b)


def draw_follow_up(rng: random.Random, wide: bool = False) -> Item:
    """A sum, and another on its result."""
    first = (draw_story if rng.random() < FOLLOWED else draw_single)(rng, wide)
    [combination] = first.combinations
    before = next(o for o in OPERATIONS if o.sign in combination)
    a, b = map(int, combination.split(before.sign))
    result = before.result(a, b)
    operation = rng.choice([PLUS, MINUS] + [TIMES] * (result <= 10) + [DIVIDED] * (0 < result <= 100))
    if operation is DIVIDED:
        c = rng.choice([d for d in range(1, 11) if result % d == 0 and result // d <= 10] or [1])
    else:
        c = rng.randint(0, 10 if operation is not MINUS else min(result, 10))
    again = worded(rng, "and plus", plain=True, spoken=operation.spoken, b=words(c))
    second = _item("arithmetic again", again, result, operation, c)
    return Item(
        second.kind,
        (combination, *second.combinations),
        f"{first.phrasing} > {second.phrasing}",
        first.held or second.held,
        (*first.turns, *second.turns),
    )


def _item(kind: str, asked: Worded, a: int, operation: Operation, b: int) -> Item:
    turn = Turn(asked.text, spoken_sum(a, operation, b))
    return Item(kind, (f"{a}{operation.sign}{b}",), asked.phrasing, asked.held, (turn,))


KINDS = (
    Kind("arithmetic", draw_single, open=True, practise=partial(draw_single, wide=True), emphasis=2),
    Kind("story", draw_story, open=True, practise=partial(draw_story, wide=True), emphasis=1.5),
    Kind("arithmetic again", draw_follow_up, open=True, practise=partial(draw_follow_up, wide=True), turns=2),
)
