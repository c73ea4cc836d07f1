"""Steps on the thread that takes the chunks: a plain loop, for debugging, `verify` and comparisons."""

from __future__ import annotations

import threading
from collections import deque

from omni2_engine._core import SessionCancelledError
from omni2_engine.schedule.base import Failed
from omni2_engine.schedule.calls import StageCalls, Task
from omni2_engine.turn.plan import STAGE_OF, StageIndex, Step
from omni2_engine.turn.step_runner import StepRunner


class InlineSchedule:
    """Every session runs its own steps, one at a time. See `Schedule`.

    Args:
        calls: what the stages do.
    """

    def __init__(self, calls: StageCalls) -> None:
        self._calls = calls

    def open(self, failed: Failed, run_ahead: float) -> InlineQueue:
        """See `Schedule.open`; a session that is alone never rests."""
        return InlineQueue(self._calls, failed)

    def close(self) -> None:
        """See `Schedule.close`."""


class InlineQueue:
    """See `SessionQueue`. Steps run on one thread at a time; others may cancel and end the turn."""

    def __init__(self, calls: StageCalls, failed: Failed) -> None:
        self._calls = calls
        self._failed = failed
        self._queues: dict[StageIndex, deque[Task]] = {stage: deque() for stage in StageIndex}
        self._running = threading.RLock()  # held by the thread that runs a step
        self._cancelled = False
        self._closed = False

    def begin(self) -> None:
        """See `SessionQueue.begin`."""

    def speculate(self) -> None:
        """Nothing: a session that is alone delays no other."""

    def submit(self, step: Step, run: StepRunner) -> None:
        """See `SessionQueue.submit`."""
        if self._cancelled or self._closed:
            raise SessionCancelledError("the turn is cancelled")
        self._queues[STAGE_OF[type(step)]].append(Task(run, step))

    def run_step(self) -> bool:
        """Run the oldest step of the stage nearest to the sound."""
        with self._running:
            if self._cancelled or self._closed:
                return False
            stage = next((stage for stage in reversed(StageIndex) if self._queues[stage]), None)
            if stage is None:
                return False
            task = self._queues[stage].popleft()
            (error,) = self._calls.call([task])
            if error is not None:
                self.cancel()
                self._failed(error)
            return True

    def lead(self) -> float:
        """0: no player runs while the steps do."""
        return 0.0

    def delivered(self, seconds: float) -> None:
        """See `SessionQueue.delivered`."""

    def preempted(self) -> bool:
        """False: no other session shares the thread."""
        return False

    def hold(self, held: bool) -> None:
        """No step runs unless it is asked for."""

    def finish(self) -> None:
        """See `SessionQueue.finish`."""

    def cancel(self) -> None:
        """See `SessionQueue.cancel`."""
        self._cancelled = True

    def revive(self) -> None:
        """See `SessionQueue.revive`."""
        if self._closed:
            raise SessionCancelledError("the session is closed")
        for queue in self._queues.values():
            queue.clear()
        self._cancelled = False

    def drained(self) -> None:
        """See `SessionQueue.drained`; inside a step of its own a thread does not wait."""
        with self._running:
            pass

    def close(self) -> None:
        """See `SessionQueue.close`."""
        self._closed = True
