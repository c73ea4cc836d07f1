"""Waiting in tests, without a measured time: for an event, for a state that has none, for a moment of a turn.

A wait fails after twenty minutes, which no machine needs, however busy.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import onnxruntime as ort

from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend

SOON = 1200.0  # seconds after which a test is taken to hang, on a machine however busy


def eventually(holds: Callable[[], object], instead: object = None) -> bool:
    """Waits for a state that no event tells, such as another process's file; returns True when it holds.

    Args:
        holds: whether it does.
        instead: what there is in its place, for the message of the wait that failed.
    """
    limit = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < limit, f"what was waited for does not come: {instead}"
        time.sleep(0.001)
    return True


def sleeps(thread: threading.Thread) -> bool:
    """Waits until a thread waits for a lock, a condition or an event."""

    def in_wait() -> bool:
        assert thread.is_alive() and thread.ident is not None
        frame = sys._current_frames().get(thread.ident)
        return frame is not None and frame.f_code.co_filename == threading.__file__ and "wait" in frame.f_code.co_name

    return eventually(in_wait)


def let_others_run(turns: int = 20) -> None:
    """Gives other threads a chance, several times, to do what they must not do yet."""
    for _ in range(turns):
        time.sleep(0)  # gives up the interpreter lock and the processor


class Moment:
    """The run of a graph that was asked for, see `Moments.at`."""

    def __init__(self, number: int, held: bool) -> None:
        self.number = number
        self.graph = ""  # which graph it was, once it is reached
        self.reached = threading.Event()
        self._through = threading.Event()
        if not held:
            self._through.set()

    def pass_by(self, graph: str) -> None:
        """Called by the run itself."""
        self.graph = graph
        self.reached.set()
        assert self._through.wait(SOON)

    def let_through(self) -> None:
        """Let the run go on that was held, or need not be reached any more."""
        self.reached.set()
        self._through.set()


class Moments:
    """Counts the runs of all graphs of an engine, which are the same for the same turn on any machine."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._next: Moment | None = None

    def at(self, number: int, held: bool = False) -> Moment:
        """The run behind `number` others from here on; where it is held it waits to be let through."""
        with self._lock:
            self._next = Moment(self.runs.total() + number + 1, held)
            return self._next

    def begin(self, graph: str) -> None:
        """A graph is about to run."""
        with self._lock:
            self.runs[graph] += 1
            moment = self._next if self._next and self._next.number == self.runs.total() else None
        if moment:
            moment.pass_by(graph)

    def backend(self, **options: Any) -> OnnxRuntimeBackend:
        """ONNX Runtime whose runs are counted here; for `Engine.load(backend=…)`."""
        return _CountedBackend(self, **options)


class _CountedBackend(OnnxRuntimeBackend):
    def __init__(self, moments: Moments, **options: Any) -> None:
        super().__init__(threads=1, **options)
        self._moments = moments

    def session(self, model: str | bytes, label: str, *arguments: Any) -> Any:
        return _CountedSession(super().session(model, label, *arguments), label.removesuffix(".onnx"), self._moments)


class _CountedSession:
    def __init__(self, session: ort.InferenceSession, graph: str, moments: Moments) -> None:
        self._session, self._graph, self._moments = session, graph, moments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *arguments: Any) -> Any:
        self._moments.begin(self._graph)
        return self._session.run(*arguments)

    def run_with_iobinding(self, *arguments: Any) -> None:
        self._moments.begin(self._graph)
        self._session.run_with_iobinding(*arguments)
