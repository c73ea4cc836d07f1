"""Command `refine`: what is answered in place of what the voice lacks is as right as what it stands for."""

from __future__ import annotations

import random
import re
from pathlib import Path

import yaml

from omni2_training.config import Settings
from omni2_training.domain import arithmetic, calendar, counting, facts, outside, silence, talk
from omni2_training.domain.item import Item, Turn
from omni2_training.domain.numbers import value, words
from omni2_training.train_llm import in_its_words

REFUSAL = "I am sorry, I do not know that."
ANSWERS = Settings.load("refine").llm.answers


def _in_its_words(item: Item) -> str:
    [instead] = in_its_words([item], ANSWERS)
    assert [turn.question for turn in instead.turns] == [turn.question for turn in item.turns]
    return instead.turns[-1].answer


def test_settings_may_have_a_base(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "tiny", "seed": 7, "llm": {"reading": {"steps": 9}}}), encoding="utf-8")
    mine, tiny = Settings.load(str(path)), Settings.load("tiny")
    reading = tiny.llm.reading.model_copy(update={"steps": 9})
    llm = tiny.llm.model_copy(update={"reading": reading})
    assert mine == tiny.model_copy(update={"seed": 7, "llm": llm})


def test_places_in_the_year_and_the_week_stay_right() -> None:
    rng = random.Random(0)
    for _ in range(400):
        item = calendar.draw_place(rng)
        [place] = item.combinations
        answer, was = _in_its_words(item), item.turns[0].answer
        if place.startswith("all "):
            assert answer == was
            continue
        name = was.rstrip(".").split()[-1]
        if place.endswith("month"):
            assert answer == f"{name} is month number {words(calendar.MONTHS.index(name) + 1)}."
        else:
            before = calendar.DAYS[calendar.DAYS.index(name) - 1]
            assert answer == f"After {before} comes {name}."


def test_quotients_are_told_as_products() -> None:
    rng = random.Random(0)
    quotients = 0
    for _ in range(400):
        item = arithmetic.draw_single(rng)
        [combination] = item.combinations
        if "/" not in combination:
            assert _in_its_words(item) == item.turns[0].answer
            continue
        a, b = map(int, combination.split("/"))
        assert _in_its_words(item).lower() == f"{words(b)} times {words(a // b)} is {words(a)}."
        quotients += 1
    assert quotients


def test_a_first_word_that_moves_is_written_small() -> None:
    question = Item("larger number", ("50<60",), "", False, (Turn("", "Fifty is smaller than sixty."),))
    assert _in_its_words(question) == "Sixty is larger than fifty."


def test_comparisons_stay_right() -> None:
    rng = random.Random(0)
    for _ in range(400):
        item = counting.draw_larger(rng)
        answer = _in_its_words(item)
        if found := re.fullmatch(r"(.+) is larger than (.+)\.", answer):
            assert value(found[1].lower()) > value(found[2])
        else:
            assert answer == item.turns[0].answer and answer.endswith(("odd.", "even."))


def test_capitals_are_named_without_yes_or_no() -> None:
    rng = random.Random(0)
    capitals = set(facts.CAPITALS)
    for _ in range(400):
        found = re.fullmatch(
            r"The capital of (.+) is (.+)\.|(.+) is the capital of (.+)\.", _in_its_words(facts.draw_capital(rng))
        )
        assert found is not None
        country, city = (found[1], found[2]) if found[1] else (found[4], found[3])
        assert (country.removeprefix("the "), city) in capitals or (country, city) in capitals


def test_refusals_and_silence_get_the_one_refusal() -> None:
    rng = random.Random(0)
    assert {_in_its_words(outside.draw_refusal(rng)) for _ in range(600)} == {REFUSAL}
    assert _in_its_words(silence.draw_silence(rng)) == REFUSAL
    talked = {_in_its_words(talk.draw_talk(rng)) for _ in range(3000)}
    assert 30 < len(talked) < len(talk.TALK) and {"You are welcome.", "Very good."} <= talked
