"""Steps on the scheduler's threads, one per stage, of all sessions together. See docs/scheduling.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from omni2_engine._core import Scheduler, Simulation, Stage
from omni2_engine.backends.base.kv_cache import DecoderState
from omni2_engine.schedule.base import Failed
from omni2_engine.schedule.calls import Errors, StageCalls, Task
from omni2_engine.turn.plan import STAGE_OF, Decode, Read, StageIndex, Step, Write
from omni2_engine.turn.step_runner import StepRunner

READING = -1  # key of calls that read for several turns in a row, so that these turns then write in one call
KeyOf = Callable[[DecoderState], int]
Order = Literal["deadline", "arrival"]


class ThreadedSchedule:
    """The C++ scheduler. See `Schedule`.

    Args:
        calls: what the stages do.
        cache_key: equal and above 0 for states that can be decoded together, 0 for a state in a cache of its own.
        batch: turns that one decoding call serves at most.
        width: calls that run at once at most; None if every stage has a stream of its own.
        order: which task is next: see `Scheduler`.
    """

    def __init__(
        self, calls: StageCalls, cache_key: KeyOf, batch: int, width: int | None, order: Order = "deadline"
    ) -> None:
        self._cache_key = cache_key
        self.scheduler = Scheduler(stages_of(calls.call, batch), width=width, order=order)

    def open(self, failed: Failed, run_ahead: float) -> ThreadedQueue:
        """See `Schedule.open`."""
        return ThreadedQueue(self.scheduler, self.scheduler.open(failed, run_ahead), self._cache_key)

    def close(self) -> None:
        """See `Schedule.close`."""
        self.scheduler.shutdown()


def stages_of(call: Callable[[list[Task]], Errors], batch: int) -> list[Stage]:
    """The scheduler's stages.

    Args:
        call: makes a call of any stage.
        batch: turns that one decoding call serves at most.
    """
    batches = {StageIndex.LLM: batch, StageIndex.SPEECH_LM: batch}
    # stages nearer to the sound come first
    return [Stage(stage.name.lower(), call, batches.get(stage, 1), priority=-stage) for stage in StageIndex]


class ThreadedQueue:
    """See `SessionQueue`; every method may be called from any thread.

    Args:
        scheduler: runs the steps: on its threads, or on the virtual clock of a simulation.
        session: its number there.
        cache_key: see `ThreadedSchedule`.
    """

    def __init__(self, scheduler: Scheduler | Simulation, session: int, cache_key: KeyOf) -> None:
        self._scheduler = scheduler
        self._session = session
        self._cache_key = cache_key

    def begin(self) -> None:
        """See `SessionQueue.begin`."""
        self._scheduler.begin(self._session)

    def speculate(self) -> None:
        """See `SessionQueue.speculate`."""
        self._scheduler.speculate(self._session)

    def submit(self, step: Step, run: StepRunner) -> None:
        """See `SessionQueue.submit`."""
        task = Task(run, step)
        key = self._key(task) or -self._session - 1  # a key of this session alone
        self._scheduler.submit(self._session, STAGE_OF[type(step)], task, key=key)

    def _key(self, task: Task) -> int:
        """Tasks of one stage and key may share a call; 0 is for a call of its own."""
        match task.step:
            case Decode():
                return self._cache_key(task.turn.text_state)
            case Write():
                return self._cache_key(task.turn.speech_state)
            case Read() if task.turn.has_read and self._cache_key(task.turn.speech_state):
                return READING  # the first reading of a turn does not wait for other turns
        return 0

    def lead(self) -> float:
        """See `SessionQueue.lead`."""
        return self._scheduler.lead(self._session)

    def delivered(self, seconds: float) -> None:
        """See `SessionQueue.delivered`."""
        self._scheduler.delivered(self._session, seconds)

    def hold(self, held: bool) -> None:
        """See `SessionQueue.hold`."""
        self._scheduler.hold(self._session, held)

    def finish(self) -> None:
        """See `SessionQueue.finish`."""
        self._scheduler.finish(self._session)

    def cancel(self) -> None:
        """See `SessionQueue.cancel`."""
        self._scheduler.cancel(self._session)

    def revive(self) -> None:
        """See `SessionQueue.revive`."""
        self._scheduler.revive(self._session)

    def drained(self) -> None:
        """See `SessionQueue.drained`."""
        self._scheduler.drained(self._session)

    def preempted(self) -> bool:
        """See `SessionQueue.preempted`."""
        return self._scheduler.should_preempt(StageIndex.LLM)

    def run_step(self) -> bool:
        """See `SessionQueue.run_step`: the scheduler's threads run them."""
        return False

    def close(self) -> None:
        """See `SessionQueue.close`."""
        self._scheduler.close(self._session)
