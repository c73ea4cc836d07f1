"""What the scheduler's stages run: steps of turns, those of several turns in one call where that saves time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from omni2_engine._core import Scheduler, SessionCancelledError, Stage
from omni2_engine.scheduling.turn_policy import STAGE_OF, Decode, Prefill, Read, Render, Speak, StageIndex, Step, Voice

if TYPE_CHECKING:
    from omni2_engine.stages.language_model import LanguageModel
    from omni2_engine.turn import Turn

ALONE = 0  # key of calls that nobody shares; keys from 1 on are caches whose slots are decoded together
READING = -1  # key of calls that read for several turns, one after another, so that they go on to speak together
Errors = list[BaseException | None]


@dataclass(frozen=True, slots=True)
class Task:
    """A step of a turn, with what it needs of the scheduler."""

    turn: Turn
    step: Step
    scheduler: Scheduler
    session: int


class Workers:
    """The stages' work.

    Args:
        llm, speech_lm: the models whose decoding is shared.
        batch: turns that one decoding call serves at most.
    """

    def __init__(self, llm: LanguageModel, speech_lm: LanguageModel, batch: int) -> None:
        self._llm = llm
        self._speech_lm = speech_lm
        self._batch = batch

    def stages(self) -> list[Stage]:
        """In the order of `StageIndex`; what is nearer to the sound comes first."""
        runs: dict[StageIndex, tuple[Callable[..., Errors], int]] = {
            StageIndex.ENCODER: (listen, 1),
            StageIndex.LLM: (self.write, self._batch),
            StageIndex.SPEECH_LM: (self.speak, self._batch),
            StageIndex.FLOW: (self.render, 1),
            StageIndex.VOCODER: (self.voice, 1),
        }
        return [Stage(index.name.lower(), run, batch, priority=-index) for index, (run, batch) in sorted(runs.items())]

    def write(self, tasks: list[Task]) -> Errors:
        """Language model: one prefill, or one token for each."""
        if isinstance(tasks[0].step, Prefill):
            return [attempt(task.turn.prefill) for task in tasks]
        turns = [task.turn for task in tasks]
        with spans(turns, "decode"):
            self._llm.decode(
                [turn.writer.state for turn in turns], np.concatenate([turn.writer.embeds() for turn in turns])
            )
        return [attempt(turn.wrote) for turn in turns]

    def speak(self, tasks: list[Task]) -> Errors:
        """Speech LM: one group read, or one token for each."""
        if isinstance(tasks[0].step, Read):
            return [attempt(task.turn.read) for task in tasks]
        turns = [task.turn for task in tasks]
        with spans(turns, "speech_decode"):
            self._speech_lm.decode(
                [turn.speaker.state for turn in turns], np.concatenate([turn.speaker.embeds() for turn in turns])
            )
        return [attempt(turn.spoke) for turn in turns]

    def render(self, tasks: list[Task]) -> Errors:
        """Flow: its work fills a CPU whoever it is for, so nothing is gained by sharing."""
        return [attempt(partial(_render, task)) for task in tasks]

    def voice(self, tasks: list[Task]) -> Errors:
        """Vocoder, and the sound on its way to the player."""
        return [attempt(partial(_voice, task)) for task in tasks]


def listen(tasks: list[Callable[[], None]]) -> Errors:
    """Encoder."""
    return [attempt(task) for task in tasks]


def submitter(scheduler: Scheduler, session: int, turn: Turn) -> Callable[[Step], None]:
    """What a turn's policy submits its steps with."""
    speaking = turn.engine.states.key(turn.speaker.state)
    keys = {
        Decode: turn.engine.states.key(turn.writer.state),
        Read: READING if speaking != ALONE else ALONE,
        Speak: speaking,
    }

    def submit(step: Step) -> None:
        opening = isinstance(step, Read) and not turn.history.rounds  # the first chunk waits for nobody's reading
        key = ALONE if opening else keys.get(type(step), ALONE)
        key = key or -session - 1  # nobody else has that one
        scheduler.submit(session, STAGE_OF[type(step)], Task(turn, step, scheduler, session), key=key)

    return submit


def _render(task: Task) -> None:
    assert isinstance(task.step, Render)
    call = task.turn.policy.rendering(task.step)
    task.turn.render(call.units, call.final)


def _voice(task: Task) -> None:
    step, scheduler = task.step, task.scheduler
    assert isinstance(step, Voice)
    seconds = task.turn.voice(step.final)
    if seconds:
        scheduler.delivered(task.session, seconds)
    if step.final:
        scheduler.finish(task.session)
        task.turn.output.end()
    else:
        task.turn.policy.voiced()


def attempt(work: Callable[[], Any]) -> BaseException | None:
    """Do it and return what it raises; that a session was cancelled meanwhile is no error."""
    try:
        work()
    except SessionCancelledError:
        return None
    except BaseException as error:
        return error
    return None


@contextmanager
def spans(turns: Sequence[Turn], stage: str) -> Iterator[None]:
    """Time a piece of work done for several turns at once; each counts all of it."""
    with ExitStack() as stack:
        for turn in turns:
            stack.enter_context(turn.recorder.span(stage))
        yield
