"""Calls of the stages: steps of turns, and decoding of several turns in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from omni2_engine._core import SessionCancelledError
from omni2_engine.backends.base.decode_request import DecodeRequest
from omni2_engine.backends.base.language_model import LanguageModel
from omni2_engine.turn.plan import Decode, Encode, Prefill, Read, RunFlow, RunVocoder, Step, Write
from omni2_engine.turn.run import TurnRun
from omni2_engine.turn.step_runner import StepRunner

Errors = list[BaseException | None]


@dataclass(frozen=True, slots=True)
class Task:
    """A step of a turn, or of earlier turns that are fed."""

    run: StepRunner
    step: Step

    @property
    def turn(self) -> TurnRun:
        """The turn, for a step that only turns have."""
        assert isinstance(self.run, TurnRun)
        return self.run


class StageCalls:
    """Calls of the stages.

    Args:
        llm, speech_lm: the models that decode several turns in one call.
    """

    def __init__(self, llm: LanguageModel, speech_lm: LanguageModel) -> None:
        self._llm = llm
        self._speech_lm = speech_lm

    def call(self, tasks: list[Task]) -> Errors:
        """Make one call.

        Args:
            tasks: steps of one kind, each of another turn.

        Returns:
            For each what it raised, or None.
        """
        step = tasks[0].step
        if isinstance(step, Decode):
            return self._decode(tasks)
        if isinstance(step, Write):
            return self._write(tasks)
        return [_attempt(partial(_run_alone, task)) for task in tasks]

    def _decode(self, tasks: list[Task]) -> Errors:
        """Text tokens for several turns. This is the longest call, so it ends early for a more urgent one."""
        requests = _aligned([task.turn.ask_text(task.step.tokens) for task in tasks if isinstance(task.step, Decode)])
        with _spans(tasks, "decode"):
            found = self._llm.decode_many(requests, tasks[0].turn.queue.preempted)
        return [_attempt(partial(task.turn.take_text, tokens)) for task, tokens in zip(tasks, found, strict=True)]

    def _write(self, tasks: list[Task]) -> Errors:
        """Speech tokens for several turns."""
        requests = _aligned([task.turn.ask_speech(task.step.tokens) for task in tasks if isinstance(task.step, Write)])
        with _spans(tasks, "speech_decode"):
            found = self._speech_lm.decode_many(requests)
        return [_attempt(partial(task.turn.take_speech, tokens)) for task, tokens in zip(tasks, found, strict=True)]


def _run_alone(task: Task) -> None:
    """A step that is not shared with other turns."""
    match task.step:
        case Encode():
            task.run.encode()
        case Prefill(tokens):
            task.run.prefill(tokens)
        case Read(tokens=tokens):
            task.turn.read(tokens)
        case RunFlow():
            task.turn.run_flow(task.step)
        case RunVocoder(final):
            task.turn.run_vocoder(final)
        case Decode() | Write():
            raise AssertionError(f"{task.step} is part of a shared call")


def _aligned(requests: list[DecodeRequest]) -> list[DecodeRequest]:
    """The requests of one call, all as long as the shortest.

    Otherwise turns with fewer tokens to decode, and turns that come meanwhile, would wait for the longest request. The
    rest of a longer request goes into the next call.
    """
    shortest = min(request.tokens for request in requests)
    return [replace(request, tokens=shortest) for request in requests]


def _attempt(work: Callable[[], object]) -> BaseException | None:
    """Run `work` and return what it raises; cancellation of the session is no error."""
    try:
        work()
    except SessionCancelledError:
        return None
    except BaseException as error:
        return error
    return None


@contextmanager
def _spans(tasks: Sequence[Task], stage: str) -> Iterator[None]:
    """Time a call for several turns; the whole call counts for each turn."""
    with ExitStack() as stack:
        for task in tasks:
            stack.enter_context(task.turn.recorder.span(stage))
        yield
