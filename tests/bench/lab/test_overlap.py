"""`bench overlap`: figures from turns, and one run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from omni2_bench.lab.overlap import figures, page
from omni2_bench.latency.turn import TurnResult
from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine.cli.app import run


def turn(first: float, finished: float) -> TurnResult:
    return TurnResult([("flow", 0.0, first)], 0.1, [first, finished], [0.4, 0.4], finished, 0.1, 0.1, 0.1, [1], 0.0)


def test_gains_are_of_rounds() -> None:
    found = figures({"serial": [turn(1.0, 4.0), turn(2.0, 8.0)], "overlapping": [turn(1.0, 2.0), turn(1.0, 2.0)]})
    assert found["first_chunk"]["gain"]["median"] == 1.5 and found["answer"]["gain"]["median"] == 3.0
    record = {"model": "m", "machine": {"processor": "p", "threads": 2}, "rounds": 2, "chunks": 3}
    text = page({**record, "presets": {"fast": found}})
    assert "3 chunks, 2 interleaved rounds" in text
    assert "| fast | answer | 6.00 s (4.40 to 7.60) | 2.00 s (2.00 to 2.00) | ×3.00 (2.20 to 3.80) |" in text


def test_one_run(tiny_checkpoint: CheckpointPaths, question: Path, tmp_path: Path) -> None:
    options = {"checkpoint": tiny_checkpoint.model, "decoder": tiny_checkpoint.decoder, "audio": question}
    options |= {"out": tmp_path / "out", "cache": tmp_path / "cache", "threads": 1, "precision": "exact"}
    options |= {"rounds": 1, "chunks": 3}
    command = ["bench", "overlap", *(f"--{name}={value}" for name, value in options.items())]
    assert run(command) == 0
    record = json.loads((tmp_path / "out" / "overlap.json").read_text(encoding="utf-8"))
    for found in record["presets"]["exact"].values():
        assert all(found[name]["median"] > 0 for name in ("serial", "overlapping", "gain"))
    serial, overlapping = (np.load(tmp_path / "out" / f"exact-{name}.npy") for name in ("serial", "overlapping"))
    np.testing.assert_array_equal(serial, overlapping)  # the same answer whatever ran beside what
