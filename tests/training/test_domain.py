"""The domain's texts: right answers, nothing held out in training, the same corpus for one seed."""

from __future__ import annotations

import random
import re

import pytest

from omni2_training.domain import arithmetic, dates, draw_corpus
from omni2_training.domain.corpus import KINDS
from omni2_training.domain.item import Kind
from omni2_training.domain.numbers import SMALL, TENS, words

SIZES = {kind.name: 60 for kind in KINDS}
WORDS = re.compile(r"^[A-Za-z' ,.?!:]+$")


def value(text: str) -> int:
    """A number in words, read back by a rule of its own."""
    total = 0
    for word in text.replace(" and ", " ").split():
        if word == "minus":
            return -value(text.removeprefix("minus "))
        if word == "hundred":
            total *= 100
        else:
            total += SMALL.index(word) if word in SMALL else 10 * TENS.index(word)
    return total


@pytest.mark.parametrize("number", [-7, 0, 9, 13, 20, 21, 99, 100, 105, 342])
def test_numbers_in_words_read_back(number: int) -> None:
    assert value(words(number)) == number


@pytest.mark.parametrize("wide", [False, True])
def test_sums_are_right(wide: bool) -> None:
    rng = random.Random(0)
    functions = {"plus": lambda a, b: a + b, "minus": lambda a, b: a - b, "times": lambda a, b: a * b}
    for _ in range(300):
        for turn in arithmetic.draw_follow_up(rng, wide).turns:
            left, operation, right = re.split(" (plus|minus|times) ", turn.answer.lower().rstrip("."))
            right, result = right.split(" is ")
            assert functions[operation](value(left), value(right)) == value(result), turn


@pytest.mark.parametrize("most", [6, 11])
def test_clock_goes_round(most: int) -> None:
    rng = random.Random(0)
    for _ in range(200):
        item = dates.draw_clock(rng, most)
        hour, minute, ahead = map(int, re.split("[:+]", item.combinations[0]))
        later = (hour + ahead - 1) % 12 + 1
        assert dates.clock(later, minute) in item.turns[0].answer


def test_days_go_round() -> None:
    rng = random.Random(0)
    for _ in range(100):
        item = dates.draw_week(rng, 20)
        name, ahead = item.combinations[0].split("+")
        day = dates.DAYS[(dates.DAYS.index(name) + int(ahead)) % 7]
        assert item.turns[0].answer.endswith(f"after {name} it is {day}.")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.practise], ids=lambda kind: kind.name)
def test_practice_is_of_the_same_kind_and_as_wide_at_least(kind: Kind) -> None:
    assert kind.practise and kind.open
    rng = random.Random(0)
    asked, practised = ([draw(rng) for _ in range(400)] for draw in (kind.draw, kind.practise))
    assert {item.kind for item in practised} == {kind.name}
    assert {len(item.turns) for item in practised} == {len(item.turns) for item in asked}
    assert all(WORDS.match(turn.question) and WORDS.match(turn.answer) for item in practised for turn in item.turns)
    differing = [len({item.combinations for item in items}) for items in (asked, practised)]
    assert differing[1] > 0.9 * differing[0]


def test_held_out_items_share_nothing_with_training() -> None:
    corpus = draw_corpus(SIZES, 0.3, seed=3)
    open_kinds = {kind.name for kind in KINDS if kind.open}
    trained = {c for item in corpus.train if item.kind in open_kinds for c in item.combinations}
    wordings = {(item.kind, item.phrasing) for item in corpus.train}
    assert len(corpus.test) > 200
    for item in corpus.test:
        new_words = (item.kind, item.phrasing) not in wordings
        new_combination = item.kind in open_kinds and any(c not in trained for c in item.combinations)
        assert new_words or new_combination, item
    tested = {turn.question for item in corpus.test for turn in item.turns[-1:]} - {"And after that?"}
    questions = {item.turns[-1].question for item in corpus.train if len(item.turns) == 1}
    assert not tested & questions


def test_one_seed_one_corpus_of_plain_words() -> None:
    first, second, other = (draw_corpus(SIZES, 0.1, seed) for seed in (1, 1, 2))
    assert first == second != other
    for item in (*first.train, *first.test):
        for turn in item.turns:
            assert WORDS.match(turn.question) and WORDS.match(turn.answer), turn
            assert turn.answer[-1] in ".?!"


def test_every_kind_needs_a_size() -> None:
    with pytest.raises(KeyError, match="talk"):
        draw_corpus({name: size for name, size in SIZES.items() if name != "talk"}, 0.1, 1)
