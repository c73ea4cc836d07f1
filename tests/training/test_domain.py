"""The domain's texts: right answers, nothing held out in training, the same corpus for one seed."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from omni2_training.domain import arithmetic, calendar, clock, counting, draw_corpus, facts, outside
from omni2_training.domain.corpus import KINDS, held_out
from omni2_training.domain.item import Item, Kind
from omni2_training.domain.numbers import in_digits, value, words
from omni2_training.domain.others import KEPT, OTHERS, plain

SIZES = {kind.name: 60 for kind in KINDS}
WORDS = re.compile(r"^[A-Za-z' ,.?!:]+$")


def test_numbers_in_words_read_back() -> None:
    for number in range(1000):
        assert value(words(number)) == number
        assert number < 2 or in_digits(f"so {words(number)} apples") == f"so {number} apples"
    assert in_digits("which one is nineteen ninety") == "which one is 19 90"
    assert words(-7) == "minus seven"


@pytest.mark.parametrize("draw", [arithmetic.draw_single, arithmetic.draw_story, arithmetic.draw_follow_up])
@pytest.mark.parametrize("wide", [False, True])
def test_sums_are_right_and_of_the_numbers_asked_for(draw: Callable[..., Item], wide: bool) -> None:
    rng = random.Random(0)
    functions = {"plus": lambda a, b: a + b, "minus": lambda a, b: a - b, "times": lambda a, b: a * b}
    for _ in range(400):
        for number, turn in enumerate(draw(rng, wide).turns):
            left, operation, right = re.split(" (plus|minus|times|divided by) ", turn.answer.lower().rstrip("."))
            right, result = right.split(" is ")
            a, b, c = map(value, (left, right, result))
            assert functions[operation](a, b) == c if operation in functions else b * c == a, turn
            asked = in_digits(turn.question.lower())
            if number == 0 and draw is arithmetic.draw_story:
                assert {str(n) for n in (a, b) if n > 1} <= set(re.findall(r"\d+", asked)), turn


@pytest.mark.parametrize("most", [6, 11])
def test_clock_goes_round(most: int) -> None:
    rng = random.Random(0)
    assert clock.clock(0) == "twelve o'clock" and clock.clock(11 * 60 + 45) == "a quarter to twelve"
    assert clock.clock(12 * 60 + 30) == "half past twelve" and clock.clock(12 * 60 + 50) == "ten to one"
    for _ in range(300):
        item = clock.draw_clock(rng, most)
        start, change = map(int, re.fullmatch(r"(\d+)([+-]\d+)", item.combinations[0]).groups())
        answer = item.turns[0].answer
        assert clock.clock(start) in answer and answer.endswith(f" {clock.clock((start + change) % 720)}.")


def test_days_and_months_go_round() -> None:
    rng = random.Random(0)
    for _ in range(200):
        item = calendar.draw_ahead(rng, 20)
        name, ahead = re.fullmatch(r"(\w+)([+-]\d+)", item.combinations[0]).groups()
        names = calendar.DAYS if name in calendar.DAYS else calendar.MONTHS
        other = names[(names.index(name) + int(ahead)) % len(names)]
        verb = "after" if int(ahead) > 0 else "before"
        assert re.search(f" {verb} {name} it (is|was) {other}\\.$", item.turns[0].answer)


def test_today_follows_from_yesterday_and_tomorrow() -> None:
    rng = random.Random(0)
    seen = set()
    for _ in range(3000):
        [turn] = calendar.draw_neighbour(rng).turns
        if match := re.search(r"if (tomorrow is|yesterday was) (\w+), what day", turn.question.lower()):
            step = -1 if match[1] == "tomorrow is" else 1
            other = calendar.DAYS[(calendar.DAYS.index(match[2].capitalize()) + step) % 7]
            assert turn.answer.endswith(f"comes {other}.")
            seen.add(step)
    assert seen == {1, -1}


def test_counts_begin_and_end_where_they_are_asked_to() -> None:
    rng = random.Random(0)
    for _ in range(400):
        [turn] = counting.draw_count(rng).turns
        numbers = [value(word) for word in turn.answer.lower().rstrip(".").split(", ")]
        steps = {b - a for a, b in pairwise(numbers)}
        assert len(steps) == 1 and steps <= {1, -1, 2, 5, 10}
        asked = {int(number) for number in re.findall(r"\d+", in_digits(turn.question.lower()))} - {1}
        assert asked <= {*numbers, *steps}, turn


def test_capitals_are_confirmed_or_corrected() -> None:
    rng = random.Random(0)
    pairs = dict(facts.CAPITALS)
    for _ in range(400):
        [turn] = facts.draw_capital(rng).turns
        [country] = [c for c in pairs if f"of {c} is" in turn.answer or turn.answer.endswith(f"of {c}.")]
        assert pairs[country] in turn.answer
        if turn.answer.startswith(("Yes", "No")):
            assert turn.answer.startswith("Yes") == (pairs[country] in turn.question)


def test_refusals_are_worded_by_what_was_asked() -> None:
    rng = random.Random(0)
    answers = Counter(outside.draw_refusal(rng).turns[0].answer for _ in range(2000))
    assert len(answers) >= 10 and max(answers.values()) < 500
    assert all(re.search("not know|cannot|no opinion|too ", answer) for answer in answers)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.practise], ids=lambda kind: kind.name)
def test_practice_is_of_the_same_kind_and_as_wide_at_least(kind: Kind) -> None:
    assert kind.practise and kind.open
    rng = random.Random(0)
    asked, practised = ([draw(rng) for _ in range(400)] for draw in (kind.draw, kind.practise))
    assert {item.kind for item in practised} == {kind.name}
    assert {len(item.turns) for item in practised + asked} == {kind.turns}
    assert all(WORDS.match(turn.question) and WORDS.match(turn.answer) for item in practised for turn in item.turns)
    differing = [len({item.combinations for item in items}) for items in (asked, practised)]
    assert differing[1] > 0.9 * differing[0]


def test_held_out_items_share_nothing_with_training() -> None:
    corpus = draw_corpus(SIZES, 0.3, seed=3)
    open_kinds = {kind.name for kind in KINDS if kind.open}
    trained = {c for item in corpus.train if item.kind in open_kinds for c in item.combinations}
    lines = {line for item in corpus.train for line in re.split(" [/>] ", item.phrasing)}
    assert len(corpus.test) > 200
    for item in corpus.test:
        new_words = not set(re.split(" [/>] ", item.phrasing)) <= lines
        new_combination = item.kind in open_kinds and any(c not in trained for c in item.combinations)
        assert new_words or new_combination or KEPT & {plain(turn.question) for turn in item.turns}, item
    assert sum(item.held for item in corpus.test) > 100 and not any(item.held for item in corpus.train)


def test_questions_in_other_words_are_kept_from_training() -> None:
    assert len(KEPT) >= 40 and {"sums", "talk", "outside", "unheard"} <= {other.kind for other in OTHERS}
    rng = random.Random(0)
    [kind] = [kind for kind in KINDS if kind.name == "months"]
    found = 0
    for _ in range(6000):
        item = kind.draw(rng)
        if plain(item.turns[0].question) in KEPT:
            assert held_out(item)
            found += 1
    assert found, "one of them can be drawn, or this shows nothing"


def test_one_seed_one_corpus_of_plain_words() -> None:
    first, second, other = (draw_corpus(SIZES, 0.1, seed) for seed in (1, 1, 2))
    assert first == second != other
    for item in (*first.train, *first.test):
        for turn in item.turns:
            assert (WORDS.match(turn.question) or item.kind == "silence") and WORDS.match(turn.answer), turn
            assert turn.answer[-1] in ".?!"


def test_every_kind_needs_a_size() -> None:
    with pytest.raises(KeyError, match="talk"):
        draw_corpus({name: size for name, size in SIZES.items() if name != "talk"}, 0.1, 1)
