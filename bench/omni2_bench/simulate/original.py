"""The original's schedule: one answer after another, and within an answer one stage after another (spec §6, §10).

It writes the last group of units to its end before any of it is voiced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from omni2_bench.simulate.fit import Constants
from omni2_bench.simulate.load import AnswerLength
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.trace import CallSpan
from omni2_bench.simulate.turns import SimulatedTurn
from omni2_engine._core import Simulation, Stage

LLM, SPEECH, SYNTHESIS = STAGES = ("LLM", "speech LM", "flow, vocoder")


@dataclass(frozen=True)
class Step:
    """One step of an answer: its stage, the seconds it takes, and the seconds of sound it brings."""

    stage: str
    seconds: float
    sound: float = 0.0


def steps(answer: AnswerLength, times: Constants, model: SimulatedModel) -> Iterator[Step]:
    """An answer in the original's order, each step as long as the paper's table says, for texts of any length."""
    sound, hop = model.sound, model.hop
    units = voiced = 0
    out = 0.0
    yield Step(LLM, times.prompt)
    for tokens in range(1, answer.tokens + 1):
        yield Step(LLM, times.text_token)
        final = tokens == answer.tokens
        if tokens % model.read and not final:
            continue
        left = answer.units - units
        count = left if final else min(model.write, left)
        yield Step(SPEECH, times.speech(count))
        units += count
        ended = False
        while units - voiced >= hop or (final and not ended):
            voiced = min(voiced + hop, units)
            ended = final and voiced == units
            out, heard = sound.out(voiced, ended), out
            yield Step(SYNTHESIS, times.synthesis, out - heard)


class SerialServer:
    """One device that answers one question after the other, in the order in which they were asked.

    Args:
        times: the original's.
        model: its R, W and sound.
    """

    def __init__(self, times: Constants, model: SimulatedModel) -> None:
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
