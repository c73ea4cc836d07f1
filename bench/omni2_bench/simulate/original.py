"""The original's schedule: one answer after another, and within an answer one stage after another (spec §6, §10).

It reads the speech LM's whole context anew for every write, writes the last one to its end before any of it is voiced,
and runs the flow on all units so far at every call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from omni2_bench.simulate.device import Limits
from omni2_bench.simulate.fit import Constants
from omni2_bench.simulate.load import Answer
from omni2_bench.simulate.model import Model
from omni2_bench.simulate.trace import Span
from omni2_bench.simulate.turns import Turn
from omni2_engine._core import Simulation, Stage

STAGES = ("LLM", "speech LM", "flow, vocoder")
LLM, SPEECH, SYNTHESIS = range(len(STAGES))


class SerialTimes(Protocol):
    """Seconds of the original's steps."""

    def prompt(self) -> float:
        """Encoder and prefill; the first text token is there."""

    def text_token(self, index: int) -> float:
        """Every other text token, `index` of them there already."""

    def write(self, pairs: int, context: int, units: int) -> float:
        """Fusing pairs, reading a context that they end, and writing units."""

    def synthesis(self, units: int, voiced: int, final: bool) -> float:
        """Flow and vocoder after `units` units in all, `voiced` of them seen by the call before."""


@dataclass(frozen=True)
class FittedTimes:
    """What the paper's table says of an L40, whatever the lengths."""

    constants: Constants

    def prompt(self) -> float:
        """See `SerialTimes`."""
        return self.constants.llm(1)

    def text_token(self, index: int) -> float:
        """See `SerialTimes`."""
        return self.constants.text_token

    def write(self, pairs: int, context: int, units: int) -> float:
        """See `SerialTimes`."""
        return self.constants.speech(units)

    def synthesis(self, units: int, voiced: int, final: bool) -> float:
        """See `SerialTimes`."""
        return self.constants.synthesis


@dataclass(frozen=True)
class LimitTimes:
    """What a device takes at stated efficiencies for the steps the original makes.

    Args:
        model: its dimensions.
        limits: of the device.
    """

    model: Model
    limits: Limits

    def prompt(self) -> float:
        """See `SerialTimes`."""
        return self.limits.seconds(self.model.efforts.encode) + self._llm(self.model.prompt, 0)

    def text_token(self, index: int) -> float:
        """See `SerialTimes`."""
        return self._llm(1, self.model.prompt + index - 1)

    def write(self, pairs: int, context: int, units: int) -> float:
        """See `SerialTimes`."""
        efforts = self.model.efforts
        calls = [(context, 0), *((1, context + unit) for unit in range(units - 1))]
        fusing = self.limits.seconds(efforts.fuse([pairs]))
        return fusing + sum(self.limits.seconds(efforts.extend_speech([call])) for call in calls)

    def synthesis(self, units: int, voiced: int, final: bool) -> float:
        """See `SerialTimes`."""
        efforts, sound = self.model.efforts, self.model.sound
        mel = efforts.flow([(sound.frames(units, final), 0)])
        return self.limits.seconds(mel) + self.limits.seconds(efforts.vocode([sound.vocoded(voiced, units, final)]))

    def _llm(self, count: int, seen: int) -> float:
        return self.limits.seconds(self.model.efforts.extend_llm([(count, seen)]))


@dataclass(frozen=True)
class Step:
    """One step of an answer: its stage, the seconds it takes, and the seconds of sound it brings."""

    stage: int
    seconds: float
    sound: float = 0.0


def steps(answer: Answer, times: SerialTimes, model: Model) -> Iterator[Step]:
    """An answer in the original's order."""
    sound, hop = model.sound, model.hop
    units = voiced = 0
    out = 0.0
    yield Step(LLM, times.prompt())
    for tokens in range(1, answer.tokens + 1):
        if tokens > 1:
            yield Step(LLM, times.text_token(tokens - 1))
        final = tokens == answer.tokens
        if tokens % model.read and not final:
            continue
        left = answer.units - units
        count = left if final else min(model.write, left)
        yield Step(SPEECH, times.write((tokens - 1) % model.read + 1, tokens + units, count))
        units += count
        ended = False
        while units - voiced >= hop or (final and not ended):
            before, voiced = voiced, min(voiced + hop, units)
            ended = final and voiced == units
            seconds = times.synthesis(voiced, before, ended)
            out, heard = sound.out(voiced, ended), out
            yield Step(SYNTHESIS, seconds, out - heard)


class SerialServer:
    """One device that answers one question after the other, in the order in which they were asked.

    Args:
        times: of every step.
        model: its R, W and sound.
    """

    def __init__(self, times: SerialTimes, model: Model) -> None:
        self._times = times
        self._model = model
        self._waiting: deque[tuple[Turn, Answer, Callable[[], None]]] = deque()
        self._busy = False
        self._spans: list[Span] = []
        stages = [Stage(name, self._done) for name in STAGES]
        self.simulation = Simulation(stages, lambda _, calls: calls[0].step.seconds, width=1, order="arrival")
        self._session = self.simulation.open()

    def ask(self, turn: Turn, answer: Answer, heard: Callable[[], None]) -> None:
        """Answer a question as soon as those before it are answered; `heard` is called when all of it is ready."""
        self._waiting.append((turn, answer, heard))
        if not self._busy:
            self._begin()

    def spans(self) -> list[Span]:
        """Calls so far."""
        return self._spans

    def _begin(self) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            turn, answer, heard = self._waiting.popleft()
            self._submit(turn, steps(answer, self._times, self._model), heard)

    def _submit(self, turn: Turn, rest: Iterator[Step], heard: Callable[[], None]) -> None:
        step = next(rest, None)
        if step is None:
            heard()
            self._begin()
        else:
            self.simulation.submit(self._session, step.stage, _Call(turn, step, rest, heard))

    def _done(self, calls: list[_Call]) -> None:
        (call,) = calls
        now, step = self.simulation.now(), call.step
        self._spans.append(Span(STAGES[step.stage], now - step.seconds, now, (call.turn.session,)))
        call.turn.hear(now, step.sound)
        self._submit(call.turn, call.rest, call.heard)


@dataclass(frozen=True)
class _Call:
    turn: Turn
    step: Step
    rest: Iterator[Step]
    heard: Callable[[], None]
