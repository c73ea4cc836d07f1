"""Overlapping stages: gains are taken round by round, and an answer does not depend on what overlaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from omni2_bench.lab.overlap import gains, measure
from omni2_bench.latency.turn import TurnResult


def turn(first: float, finished: float) -> TurnResult:
    return TurnResult([("flow", 0.0, first)], 0.1, [first, finished], [0.4, 0.4], finished, 0.1, 0.1, 0.1, [1], 0.0)


def test_gains_are_of_rounds() -> None:
    found = gains({"serial": [turn(1.0, 4.0), turn(2.0, 8.0)], "overlapping": [turn(1.0, 2.0), turn(1.0, 2.0)]})
    assert found["first chunk"]["gain"].median == 1.5 and found["answer"]["gain"].median == 3.0
    assert found["answer"]["serial"].median == 6.0


def test_one_run(tiny_engine_dir: Path, question: Path, tmp_path: Path) -> None:
    results = measure(tiny_engine_dir, question, rounds=1, threads=1, chunks=3, folder=tmp_path)
    assert {name: len(turns) for name, turns in results.items()} == {"serial": 1, "overlapping": 1}
    serial, overlapping = (np.load(tmp_path / f"{name}.npy") for name in ("serial", "overlapping"))
    assert len(serial)
    np.testing.assert_array_equal(serial, overlapping)  # the same answer, overlapping or not
