"""The checks of a GPU that is lent for minutes: the most worthy first, an end in time, and a report to send back."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

# What tells most comes first; a file that is not named comes last.
ORDER = ("test_alone", "test_start", "test_numerics", "test_pipeline", "test_latency")
REPORT = "gpu-report.json"


class Budget:
    """A pytest plugin.

    Args:
        seconds: after which nothing more is begun and what runs is ended; None for no limit.
        folder: for the report.
    """

    def __init__(self, seconds: float | None, folder: Path) -> None:
        self._seconds, self._folder = seconds, folder
        self._began = time.monotonic()
        self._outcomes: dict[str, dict[str, object]] = {}
        self._not_reached: list[str] = []
        self._running = ""

    @property
    def left(self) -> float:
        """Seconds; infinite without a limit."""
        return float("inf") if self._seconds is None else self._began + self._seconds - time.monotonic()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Order files by worth; within one, as they are written."""
        items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else len(ORDER))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """Begin nothing when the time is over; end what takes too long to prepare."""
        self._running = item.nodeid
        if self.left <= 0:
            self._skip()
        return (yield from self._limited())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """End what runs when the time is over."""
        return (yield from self._limited())

    def _limited(self) -> Iterator[None]:
        if self.left < float("inf"):
            signal.signal(signal.SIGALRM, self._over)
            signal.setitimer(signal.ITIMER_REAL, max(self.left, 0.01))
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how a check went: its call, or the set-up that kept it from being called."""
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            said = str(report.longrepr)[-2000:] if report.failed else ""
            found = {"outcome": report.outcome, "seconds": round(report.duration, 2), "said": said}
            self._outcomes[report.nodeid] = found

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was not reached, and leave a file to send back."""
        self._folder.mkdir(parents=True, exist_ok=True)
        report = {"budget": self._seconds, "not reached": self._not_reached, "checks": self._outcomes}
        (self._folder / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
        for name in self._not_reached:
            terminalreporter.write_line(f"not reached within {self._seconds:g} s: {name}")
        terminalreporter.write_line(f"to send back: {self._folder / REPORT}")

    def _over(self, number: int, frame: FrameType | None) -> None:
        self._skip()

    def _skip(self) -> None:
        self._not_reached.append(self._running)
        pytest.skip(f"not reached within {self._seconds:g} s")
