"""`bench live`: what is measured, and one condition of it against the real server."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from omni2_bench.live import results
from omni2_bench.live.conditions import LiveCondition, conditions
from omni2_bench.live.page import page
from omni2_bench.live.plots import draw
from omni2_bench.live.results import LivePlan, MeasuredCondition, run
from omni2_bench.live.served import served
from omni2_bench.load.records import Call, HeardTurn
from omni2_engine.errors import BackendError

from ...waiting import SOON


def test_every_silence_is_measured_with_and_without_speculation() -> None:
    found = conditions([0.2, 0.3], [1, 2, 4])
    assert [(one.silence, one.speculate) for one in found[:4]] == [(0.2, False), (0.2, True), (0.3, False), (0.3, True)]
    assert found[4].interrupts == 1.0 and [one.conversations for one in found[5:]] == [2, 4]


def test_conversations_begin_at_random_and_alike_each_time() -> None:
    condition = LiveCondition(0.5, conversations=4, interrupts=1.0)
    visits = condition.visits(3, 5, seed=1)
    assert visits == condition.visits(3, 5, seed=1) != condition.visits(3, 5, seed=2)
    assert [visit.begins for visit in visits] == sorted({visit.begins for visit in visits})
    for visit in visits:
        assert [turn.interrupted_after is not None for turn in visit.turns] == [True, True, False]


def test_the_way_through_the_socket_is_what_the_server_does_not_count() -> None:
    turns = [
        HeardTurn(1.0, 1.5, [1.8, 2.0], [0.5, 0.5], 2.1, status="completed"),
        HeardTurn(5.0, 5.4, [5.8], [0.5], 6.0),
    ]
    measured = MeasuredCondition(LiveCondition(0.5), [])
    measured.add([Call(0.0, "done", turns=turns)], seconds=0.5, sounds=2)
    figures = measured.record()["figures"]
    assert figures["first_sound_p50"] == pytest.approx(0.8) and figures["decision_p50"] == pytest.approx(0.45)
    assert figures["server_mean"] == pytest.approx(0.25) and figures["socket_mean"] == pytest.approx(0.1)


def measured(condition: LiveCondition, late: float = 0.0) -> MeasuredCondition:
    """One whose first sound came so much later than 0.8 s after the speech, with a gap as long."""
    turn = HeardTurn(1.0, 1.5, [1.8 + late, 2.3 + 2 * late], [0.5, 0.5], 3.0, 2.0, "interrupted", noticed=2.16)
    if not condition.interrupts:
        turn.interrupted = turn.noticed = None
    return MeasuredCondition(condition, [Call(0.0, "done", turns=[turn])], (0.25, 1))


def shown(path: Path) -> bool:
    """A picture of the right size, with something on it."""
    pixels = image.imread(path)
    return pixels.shape[:2] == (600, 1800) and len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 30


def test_the_page_tells_of_interruptions() -> None:
    conditions = [measured(one).record() for one in (LiveCondition(0.5), LiveCondition(0.5, interrupts=1.0))]
    whole, interrupted = page(
        {"engine": "demo", "turns": 3, "rounds": 1, "load": 0.0, "conditions": conditions}
    ).splitlines()[6:8]
    assert whole.startswith("| 500 ms, with | 1 |") and whole.endswith("| – | – | – | – |")
    assert interrupted.startswith("| 500 ms, with, interrupted |") and interrupted.endswith("| 160 | 160 | 300 | 300 |")


def test_the_plot_shows_parts_and_loads(tmp_path: Path) -> None:
    found = conditions([0.2, 0.5], [1, 2, 8])
    draw([measured(one, 0.1 * one.conversations).record() for one in found], tmp_path / "live.png")
    draw([measured(one).record() for one in found], tmp_path / "even.png")
    assert shown(tmp_path / "live.png") and shown(tmp_path / "even.png")
    assert (tmp_path / "live.png").read_bytes() != (tmp_path / "even.png").read_bytes()


def test_a_plot_without_any_answer_is_drawn(tmp_path: Path) -> None:
    silent = MeasuredCondition(LiveCondition(0.5), [Call(0.0, "failed", problem="it does not answer")])
    draw([silent.record()], tmp_path / "live.png")
    assert image.imread(tmp_path / "live.png").shape[:2] == (600, 1800)


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="did not start"), served(tmp_path / "none", 1, True, 1):
        raise AssertionError("it started")


def test_a_condition_is_measured(
    repository: Path, tiny_engine_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "conditions", lambda *_: [LiveCondition(0.2)])
    monkeypatch.setattr(results, "Server", partial(results.Server, patience=SOON))
    plan = LivePlan(tiny_engine_dir, [repository / "examples" / "sum.wav"], [0.2], [1], 2, 1, 1, 0)
    lines: list[str] = []
    text = run(plan, tmp_path, lines.append)
    record = json.loads((tmp_path / "live.json").read_text(encoding="utf-8"))
    (condition,) = record["conditions"]
    assert condition["turns"] == 2 and "problems" not in condition
    assert {"decision_p50", "first_sound_p50", "server_mean", "socket_mean"} <= condition["figures"].keys()
    assert text == page(record) and "200 ms, with" in text and len(lines) == 1
    assert shown(tmp_path / "live.png")
