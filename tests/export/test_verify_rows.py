"""Rows of a verification: the measures, and what counts as a miss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni2_export.verify import Comparison, VerifyReport
from omni2_export.verify.rows import Measure


@given(st.floats(-60, 60), st.integers(0, 2**31))
def test_snr_is_the_ratio_of_powers(decibels: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    signal = random.standard_normal(50_000)
    noise = random.standard_normal(50_000) * 10 ** (-decibels / 20)
    comparison = Comparison(VerifyReport(), {"llm": decibels})
    row = comparison.judge("file", "array", ("llm",), signal + 5 + noise, signal + 5, absolute=0.0)
    assert row.measure is Measure.SNR and abs(row.value - decibels) < 0.2


def test_errors_of_two_quantised_stages_add_up() -> None:
    comparison = Comparison(VerifyReport(), {"llm": 20.0, "speech_lm": 20.0})
    zeros = np.zeros(3)
    assert comparison.judge("f", "a", ("speech_lm", "llm"), zeros, zeros, absolute=0.0).limit == pytest.approx(
        16.99, abs=0.01
    )
    assert comparison.judge("f", "a", ("fusion",), zeros, zeros, absolute=1.0).measure is Measure.ABSOLUTE


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_miss(bad: float) -> None:
    for floors in ({}, {"llm": 3.0}):
        row = Comparison(VerifyReport(), floors).judge("f", "a", ("llm",), [1.0, bad], [1.0, 2.0], absolute=1e9)
        assert not row.passed


def test_constant_arrays_allow_no_relative_error() -> None:
    comparison = Comparison(VerifyReport(), {})
    assert comparison.judge("f", "a", ("llm",), np.ones(3), np.ones(3), relative=1e-4).passed
    assert not comparison.judge("f", "a", ("llm",), np.ones(3) + 1e-6, np.ones(3), relative=1e-4).passed
