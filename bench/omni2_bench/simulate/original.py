"""The original's schedule: one answer after another, and within an answer one stage after another (spec §6, §10).

It reads the speech LM's whole context anew for every write, writes the last one to its end before any of it is voiced,
and runs the flow on all units so far at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from omni2_bench.simulate.device import DeviceLimits
from omni2_bench.simulate.fit import Constants
from omni2_bench.simulate.load import AnswerLength
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.trace import CallSpan
from omni2_bench.simulate.turns import SimulatedTurn
from omni2_engine._core import Simulation, Stage

LLM, SPEECH, SYNTHESIS = STAGES = ("LLM", "speech LM", "flow, vocoder")


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

    model: SimulatedModel
    limits: DeviceLimits

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

    stage: str
    seconds: float
    sound: float = 0.0


def steps(answer: AnswerLength, times: SerialTimes, model: SimulatedModel) -> Iterator[Step]:
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

    def __init__(self, times: SerialTimes, model: SimulatedModel) -> None:
        self._times = times
        self._model = model
        self._free = 0.0  # when the device has answered everything so far
        self._spans: list[CallSpan] = []
        self.simulation = Simulation([Stage("none", lambda calls: None)], lambda stage, calls: 0.0)  # a clock alone

    def ask(self, turn: SimulatedTurn, answer: AnswerLength, heard: Callable[[], None]) -> None:
        """Answer a question as soon as those before it are answered; `heard` is called when all of it is ready."""
        time = max(self._free, self.simulation.now())
        for step in steps(answer, self._times, self._model):
            began, time = time, time + step.seconds
            self._spans.append(CallSpan(step.stage, began, time, (turn.session,)))
            turn.hear(time, step.sound)
        self._free = time
        self.simulation.at(time, heard)

    def spans(self) -> list[CallSpan]:
        """Calls so far."""
        return self._spans
