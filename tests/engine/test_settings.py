"""Numbers of any type as settings: taken for what they are, or a SettingError at the call."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni2_engine import Engine, Options, Sampling
from omni2_engine.errors import SettingError
from omni2_engine.settings import choice, integer, real

USE = "a number"
WHOLE = [
    64,
    64.0,
    np.int8(64),
    np.uint8(64),
    np.int64(64),
    np.uint64(64),
    np.float16(64),
    np.float32(64),
    np.float64(64),
    np.longdouble(64),
    np.array(64),
    np.array(64.0, np.float32),
    Decimal(64),
    Decimal("6.4E1"),
    Fraction(128, 2),
]
NO_NUMBERS: list[Any] = [
    "64",
    b"64",
    "",
    True,
    np.True_,
    np.array(True),
    [64],
    (64,),
    {64},
    np.array([64]),
    np.array([[64.0]]),
    np.array("64"),
    np.array(None),
    64j,
    np.complex64(64),
    math.nan,
    np.float32("nan"),
    Decimal("nan"),
    Decimal("snan"),
    np.datetime64("2020"),
    Ellipsis,  # an object with a name that is the same in every process
    int,
    print,
]


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_numbers_of_every_type(value: Any) -> None:
    whole = integer("it", value, USE)
    number = real("it", value, USE)
    assert (whole, type(whole), number, type(number)) == (64, int, 64.0, float)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number(value: Any) -> None:
    for check in (integer, real):
        with pytest.raises(SettingError, match="it is ") as caught:
            check("it", value, USE)
        assert caught.value.remedy == "use a number" and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0.5, np.float32(0.1), Decimal("64.5"), Fraction(1, 3), math.inf, -np.inf, 1e-9])
def test_numbers_that_are_not_whole(value: Any) -> None:
    assert real("it", value, USE) == float(value)
    with pytest.raises(SettingError):
        integer("it", value, USE)


def test_none_is_a_number_only_where_it_stands_for_one() -> None:
    assert real("it", None, USE, none=math.inf) == math.inf
    assert integer("it", None, USE, none=7) == 7
    for check in (real, integer):
        with pytest.raises(SettingError, match="it is None"):
            check("it", None, USE)


@given(st.one_of(st.integers(), st.floats(), st.decimals(), st.fractions(), st.text(max_size=5), st.none()))
def test_any_value_is_a_number_or_refused(value: Any) -> None:
    """No other error, and nothing changed on the way."""
    for check, kind in ((integer, int), (real, float)):
        try:
            number = check("it", value, USE)
        except SettingError:
            continue
        assert type(number) is kind
        assert number == value or (kind is float and math.isclose(number, value))


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-5, 5))
def test_ranges_include_their_ends(value: int, least: int, most: int) -> None:
    if least <= value <= most:
        assert integer("it", value, USE, least=least, most=most) == value
    else:
        with pytest.raises(SettingError):
            integer("it", value, USE, least=least, most=most)


@pytest.mark.parametrize("value", ["no", 1, None, ["yes"], np.array(["yes", "no"]), b"yes"])
def test_words(value: Any) -> None:
    with pytest.raises(SettingError, match="use one of yes, maybe"):
        choice("it", value, ("yes", "maybe"))
    assert choice("it", np.str_("yes"), ("yes", "maybe")) == "yes"


OPTIONS = {
    "seed": int,
    "max_new_tokens": int,
    "max_last_write": int,
    "unread": float,
    "run_ahead": float,
    "deadline": float,
}
SAMPLING = {"temperature": float, "top_k": int, "top_p": float, "repetition_penalty": float}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    for value in WHOLE:
        taken = getattr(Options(**{name: value}), name)
        assert taken == 64 and type(taken) is OPTIONS[name]
    for value in [*NO_NUMBERS, -1, 2**64] if name == "seed" else [*NO_NUMBERS, -1, 0]:
        with pytest.raises(SettingError, match=name):
            Options().merged({name: value})


def test_no_limit() -> None:
    assert Options(unread=None).unread == Options(run_ahead=None).run_ahead == math.inf  # type: ignore[arg-type]
    assert Sampling(top_k=None, top_p=None, repetition_penalty=None) == Sampling()  # type: ignore[arg-type]
    assert Options(deadline=math.inf).deadline is Options(deadline=1e300).deadline is None
    for name in ("seed", "max_new_tokens", "max_last_write", "speech_sampling", "long", "chunks"):
        with pytest.raises(SettingError, match=name):
            Options(**{name: None})  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="temperature"):
        Sampling(temperature=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SAMPLING)
def test_sampling(name: str) -> None:
    for value in (1, np.float32(1), np.int64(1), np.array(1.0), Decimal(1), Fraction(1)):
        taken = getattr(Sampling(**{name: value}), name)
        assert taken == 1 and type(taken) is SAMPLING[name]
    for value in [*NO_NUMBERS, -1, math.inf]:
        with pytest.raises(SettingError, match=name.replace("_", ".")):
            Sampling(**{name: value})


@pytest.mark.parametrize("name", ["threads", "max_context", "left_context", "sessions", "memory", "max_waiting"])
def test_loading_refuses_at_the_call(tmp_path: Path, name: str) -> None:
    """Before the directory is looked at."""
    for value in [*NO_NUMBERS, -1, *([math.inf] if name in ("left_context", "max_waiting") else [0])]:
        with pytest.raises(SettingError, match=name):
            Engine.load(tmp_path / "nothing", **{name: value})
    for name in ("admission", "device", "schedule", "order"):
        with pytest.raises(SettingError, match=name):
            Engine.load(tmp_path / "nothing", **{name: np.array(["a", "b"])})


@pytest.fixture(scope="module")
def loaded_with_numbers(tiny_engine_dir: Path) -> Engine:
    return Engine.load(
        tiny_engine_dir,
        threads=np.int64(1),
        max_context=None,
        left_context=None,
        sessions=Decimal(1),
        max_waiting=np.float64(3),
        memory=2e9,
        warm_up=False,
    )  # type: ignore[arg-type]


def test_a_turn_with_numbers_of_all_kinds(
    loaded_with_numbers: Engine, tiny_engine: Engine, utterance: Callable[..., np.ndarray]
) -> None:
    def answer(engine: Engine, **options: Any) -> np.ndarray:
        rate = options.pop("sample_rate", 16_000)
        return np.concatenate([chunk.pcm for chunk in engine.stream(utterance(1), sample_rate=rate, **options)])

    assert loaded_with_numbers.max_context == loaded_with_numbers.directory.manifest.longest_context
    plain = answer(tiny_engine, seed=3, max_new_tokens=8, max_last_write=20, speech_sampling=Sampling(0.5, 20, 0.75))
    other = answer(
        loaded_with_numbers,
        sample_rate=np.float32(16_000),
        seed=np.uint64(3),
        max_new_tokens=8.0,
        max_last_write=np.array(20),
        unread=None,
        run_ahead=np.float64(np.inf),
        deadline=math.inf,
        speech_sampling=Sampling(np.float32(0.5), np.int16(20), Fraction(3, 4)),  # type: ignore[arg-type]
    )
    np.testing.assert_array_equal(other, plain)


def test_truncate(tiny_engine: Engine) -> None:
    with tiny_engine.session() as session:
        for value in [*NO_NUMBERS, None, -1]:
            with pytest.raises(SettingError, match="played_ms"):
                session.truncate(value)
        for played in (0, np.float32(1.5), Decimal(3), math.inf):
            session.truncate(played)  # type: ignore[arg-type]
