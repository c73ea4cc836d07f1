"""Names of models, stages and files on the terminal: as they are spelled, and not as rich would mark them up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from omni2_engine import Engine
from omni2_engine.cli.app import run
from omni2_export.cli.progress import BuildProgress
from omni2_export.verify import VerifyReport, print_report
from omni2_export.verify.rows import Measure, Row

NAME = "[bold]x :smile: [red]"


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with BuildProgress() as progress:
        progress.plan([(NAME, 10)])
        progress.begin(NAME)
        progress.advance(NAME, 10)
        progress.end(NAME, reused=False)
        progress.end(NAME, reused=True)
        progress.say(f"{NAME} is said")
    shown = capsys.readouterr().err
    assert shown.count(NAME) == 3


def test_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with BuildProgress() as progress:
        assert progress._console.is_terminal
        progress.begin(NAME)
    assert "[bold]x :smile: [red]" in capsys.readouterr().err


def test_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_report(VerifyReport([Row(NAME, NAME, NAME, Measure.ABSOLUTE, 0.0, 1.0)], {NAME: [NAME]}), f"title {NAME}")
    shown = capsys.readouterr().out
    assert shown.count(NAME) == 6 and f"title {NAME}" in shown


def test_what_is_being_compared(
    tiny_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line that a terminal shows while goldens are compared."""
    monkeypatch.setenv("FORCE_COLOR", "1")

    def verify(engine: Engine, goldens: Path, threads: int | None, progress: Callable[[str], None]) -> VerifyReport:
        progress("[/red] :smile:")  # closes what was never opened: no name of rich's
        return VerifyReport()

    monkeypatch.setattr("omni2_export.verify.verify_engine", verify)
    assert run(["verify", str(tiny_engine.directory.path), "--goldens", str(tmp_path), "--threads", "1"]) == 1
    assert "comparing [/red] :smile:" in capsys.readouterr().err
