"""Stages run in the order of their needs, once each; one that fails stops the run, and the next goes on there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from rich.console import Console

from omni2_training import run_all
from omni2_training.run_all import STAGES, Runner, Stage
from omni2_training.workspace import Workspace


@pytest.fixture(autouse=True)
def signals_restored() -> object:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def at_the_tests_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the lowest one a stage may wait for minutes beside other work."""
    monkeypatch.setattr(run_all, "lowest_priority", lambda: None)


def test_every_need_is_a_stage_before() -> None:
    seen: set[str] = set()
    remaining = list(STAGES)
    while remaining:
        ready = [stage for stage in remaining if set(stage.needs) <= seen]
        assert ready, f"nothing can run of {[stage.name for stage in remaining]}"
        seen |= {stage.name for stage in ready}
        remaining = [stage for stage in remaining if stage not in ready]


def test_runs_in_order_and_not_twice(tmp_path: Path) -> None:
    workspace, console = Workspace(tmp_path), Console(quiet=True)
    stages = (Stage(("vocabulary",), ("corpus",)), Stage(("corpus",)))
    assert Runner(workspace, "tiny", 2, console).run(stages)
    times = {name: workspace.path("done", name).stat().st_mtime_ns for name in ("corpus", "vocabulary")}
    assert times["corpus"] <= times["vocabulary"]  # a file system's clock may stand still between the two
    made = workspace.path("corpus.jsonl").stat().st_mtime_ns
    assert Runner(workspace, "tiny", 2, console).run(stages)
    assert workspace.path("corpus.jsonl").stat().st_mtime_ns == made


def test_a_failure_stops_the_run(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    stages = (Stage(("features",)), Stage(("tokenizer",), ("features",)))  # there is no corpus
    assert not Runner(workspace, "tiny", 1, Console(quiet=True)).run(stages)
    assert not workspace.path("done", "features").exists()
    assert "corpus.jsonl" in workspace.path("logs", "features.log").read_text()
