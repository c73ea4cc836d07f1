"""What the scheduler's stages run: steps of turns, those of several turns in one call where that saves time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import Scheduler, SessionCancelledError, Stage
from omni2_engine.scheduling.turn_policy import STAGE_OF, Decode, Prefill, Read, Render, Speak, StageIndex, Step, Voice
from omni2_engine.stages.burst import Burst

if TYPE_CHECKING:
    from omni2_engine.speech_decoder import SpeechDecoder
    from omni2_engine.stages.flow import FlowCall
    from omni2_engine.stages.language_model import LanguageModel
    from omni2_engine.stages.vocoder import VocoderCall
    from omni2_engine.turn import Turn

ALONE = 0  # key of calls that nobody shares; keys from 1 on are caches whose slots are decoded together
READING = -1  # key of calls that read for several turns, one after another, so that they go on to speak together
OPENING, UNDER_WAY = 1, 2  # keys of the flow's calls: of turns of which nothing has been heard yet, and of others
Errors = list[BaseException | None]
Floats = NDArray[np.float32]
Call = TypeVar("Call")
Made = TypeVar("Made")


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
        decoder: flow and vocoder; how many turns share their calls is theirs to say.
        batch: turns that one decoding call serves at most.
    """

    def __init__(self, llm: LanguageModel, speech_lm: LanguageModel, decoder: SpeechDecoder, batch: int) -> None:
        self._llm = llm
        self._speech_lm = speech_lm
        self._decoder = decoder
        self._batch = batch

    def stages(self) -> list[Stage]:
        """In the order of `StageIndex`; what is nearer to the sound comes first."""
        runs: dict[StageIndex, tuple[Callable[..., Errors], int]] = {
            StageIndex.ENCODER: (listen, 1),
            StageIndex.LLM: (self.write, self._batch),
            StageIndex.SPEECH_LM: (self.speak, self._batch),
            StageIndex.FLOW: (self.render, self._decoder.flow.most_at_once),
            StageIndex.VOCODER: (self.voice, self._decoder.vocoder.most_at_once),
        }
        return [Stage(index.name.lower(), run, batch, priority=-index) for index, (run, batch) in sorted(runs.items())]

    def write(self, tasks: list[Task]) -> Errors:
        """Language model: one prefill, or a burst of tokens for each.

        Its tokens take longest of all, so a burst ends as soon as somebody would come before it, or into it.
        """
        if isinstance(tasks[0].step, Prefill):
            return [attempt(partial(_prefill, task)) for task in tasks]
        bursts = aligned([task.turn.writer.ask(_tokens(task)) for task in tasks])
        with spans([task.turn for task in tasks], "decode"):
            found = self._llm.burst(bursts, partial(tasks[0].scheduler.wanted, StageIndex.LLM))
        return [attempt(partial(task.turn.wrote, tokens)) for task, tokens in zip(tasks, found, strict=True)]

    def speak(self, tasks: list[Task]) -> Errors:
        """Speech LM: one group read, or a burst of tokens for each."""
        if isinstance(tasks[0].step, Read):
            return [attempt(partial(_read, task)) for task in tasks]
        bursts = aligned([task.turn.speaker.ask(_tokens(task)) for task in tasks])
        with spans([task.turn for task in tasks], "speech_decode"):
            found = self._speech_lm.burst(bursts)
        return [attempt(partial(task.turn.spoke, tokens)) for task, tokens in zip(tasks, found, strict=True)]

    def render(self, tasks: list[Task]) -> Errors:
        """Flow."""
        return _shared(tasks, "flow", _begin_mel, self._decoder.finish_mel, _rendered)

    def voice(self, tasks: list[Task]) -> Errors:
        """Vocoder, and the sound on its way to the player."""
        return _shared(tasks, "vocoder", _begin_sound, self._decoder.finish_sound, _voiced)


def aligned(bursts: list[Burst]) -> list[Burst]:
    """Those of one call, all as long as the shortest.

    Whoever is done would otherwise wait for the longest, and so would those who come meanwhile: calls would serve
    fewer, and nobody would gain. The rest of a longer burst goes into the next call.
    """
    shortest = min(burst.tokens for burst in bursts)
    return [replace(burst, tokens=shortest) for burst in bursts]


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

    def key_of(step: Step) -> int:
        if isinstance(step, Render):  # what is waited for most shall not take longer for the others' sake
            return OPENING if turn.opening else UNDER_WAY
        if isinstance(step, Voice):
            frames, first = turn.newest_mel
            return 2 * frames + first
        opening = isinstance(step, Read) and not turn.history.rounds  # the first chunk waits for nobody's reading
        return ALONE if opening else keys.get(type(step), ALONE)

    def submit(step: Step) -> None:
        key = key_of(step) or -session - 1  # nobody else has that one
        scheduler.submit(session, STAGE_OF[type(step)], Task(turn, step, scheduler, session), key=key)

    return submit


def _tokens(task: Task) -> int:
    assert not isinstance(task.step, Render | Voice)
    return task.step.tokens


def _prefill(task: Task) -> None:
    task.turn.prefill(_tokens(task))


def _read(task: Task) -> None:
    task.turn.read(_tokens(task))


def _shared(
    tasks: list[Task],
    stage: str,
    begin: Callable[[Task], tuple[bool, Call]],
    finish: Callable[[list[Call]], list[Made]],
    end: Callable[[Task, bool, Made], object],
) -> Errors:
    """One call for several tasks: what each begins for itself, what they share, and what each makes of its part.

    An error in what a task does for itself concerns nobody else.
    """
    begun: list[tuple[int, bool, Call]] = []

    def start(number: int) -> None:
        begun.append((number, *begin(tasks[number])))

    with spans([task.turn for task in tasks], stage):
        errors = [attempt(partial(start, number)) for number in range(len(tasks))]
        made = finish([call for _, _, call in begun])
    for (number, final, _), result in zip(begun, made, strict=True):
        errors[number] = attempt(partial(end, tasks[number], final, result))
    return errors


def _begin_mel(task: Task) -> tuple[bool, FlowCall]:
    assert isinstance(task.step, Render)
    taken = task.turn.policy.rendering(task.step)
    return taken.final, task.turn.begin_mel(taken.units, taken.final)


def _rendered(task: Task, final: bool, mel: Floats) -> None:
    task.turn.rendered(mel, final)


def _begin_sound(task: Task) -> tuple[bool, VocoderCall | None]:
    assert isinstance(task.step, Voice)
    return task.step.final, task.turn.begin_sound(task.step.final)


def _voiced(task: Task, final: bool, pcm: Floats) -> None:
    scheduler = task.scheduler
    seconds = task.turn.voiced(pcm, final)
    if seconds:
        scheduler.delivered(task.session, seconds)
    if final:
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
