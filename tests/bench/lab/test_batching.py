"""Decoding for several conversations: gains are taken round by round, and one measurement of a small engine."""

from __future__ import annotations

from pathlib import Path

from omni2_bench.lab.batching import MODELS, gain, measure
from omni2_engine.model.manifest import EngineDirectory


def test_gains_are_of_rounds_and_not_of_medians() -> None:
    assert gain([1.0, 2.0, 4.0], [2.0, 6.0, 4.0]).median == 2.0  # of 2, 3 and 1
    assert gain([2.0, 3.0, 5.0], [4.0, 9.0, 5.0]).median == 2.0


def test_every_call_is_timed_in_every_round(tiny_engine_dir: Path) -> None:
    directory = EngineDirectory(tiny_engine_dir)
    for model in MODELS:
        times = measure(directory, model, [1, 3], context=20, rounds=2, threads=1)
        assert list(times) == [1, 3]
        assert all(len(seconds) == 2 and min(seconds) > 0 for kinds in times.values() for seconds in kinds)
