"""`Engine.load(order=…)`: a turn that asks goes before one that plays, or behind what that has submitted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omni2_engine import Engine
from omni2_engine.schedule.threaded import Order

from ...waiting import SOON, Moments, eventually

LIMITS = {"max_new_tokens": 14, "max_last_write": 30}


class NamedMoments(Moments):
    """Keeps the graphs in the order of their runs."""

    def __init__(self) -> None:
        super().__init__()
        self.graphs: list[str] = []

    def begin(self, graph: str) -> None:
        self.graphs.append(graph)
        super().begin(graph)


@pytest.mark.parametrize("order", ["deadline", "arrival"])
def test_which_step_is_next(tiny_engine_dir: Path, utterance: Callable[..., np.ndarray], order: Order) -> None:
    moments = NamedMoments()
    backend = moments.backend()
    backend.width = 1  # one call at a time, so that graphs run in one order

    def ask(seed: int) -> threading.Thread:
        def consume() -> None:
            for _ in engine.stream(utterance(seed), sample_rate=16_000, seed=1, **LIMITS):
                pass

        thread = threading.Thread(target=consume, daemon=True)
        thread.start()
        return thread

    with Engine.load(tiny_engine_dir, warm_up=False, sessions=2, order=order, backend=backend) as engine:
        ask(1).join(SOON)  # what is made once is made
        moments.graphs.clear()
        ask(1).join(SOON)
        first = moments.graphs.index("vocoder")
        held = moments.at(moments.graphs.index("vocoder", first + 1), held=True)  # the whole step is this graph
        playing = ask(1)
        assert held.reached.wait(SOON)
        queued = engine.scheduler.counts()[1]
        assert queued > 0  # of the turn that plays
        following = moments.at(0)
        asking = ask(2)
        assert eventually(lambda: engine.scheduler.counts()[1] > queued)
        held.let_through()
        assert following.reached.wait(SOON)
        assert (following.graph == "log_mel") == (order == "deadline")  # the question's first graph
        for thread in (playing, asking):
            thread.join(SOON)
            assert not thread.is_alive()
