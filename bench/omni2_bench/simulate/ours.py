"""Our schedule on a virtual clock: the engine's own turns and calls on the engine's own scheduler, over stages that
only take time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from omni2_bench.simulate.device import DeviceLimits
from omni2_bench.simulate.load import AnswerLength
from omni2_bench.simulate.model import BEGINNING, SimulatedModel
from omni2_bench.simulate.stages import KeptPrefix, ModelState, SoundState, StageCall, pipeline_of
from omni2_bench.simulate.trace import CallSpan
from omni2_bench.simulate.turns import SimulatedTurn
from omni2_engine._core import Simulation
from omni2_engine.memory.states import TurnStates
from omni2_engine.schedule.calls import Errors, StageCalls, Task
from omni2_engine.schedule.threaded import Order, ThreadedQueue, stages_of
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.history import History
from omni2_engine.turn.metrics import Recorder
from omni2_engine.turn.options import Options
from omni2_engine.turn.output import ChunkQueue
from omni2_engine.turn.plan import STAGE_OF, Decode, StageIndex, Write
from omni2_engine.turn.playout import Playout
from omni2_engine.turn.prompt import Exchange, Layout
from omni2_engine.turn.run import Question, TurnRun

STAGES = ("encoder", "LLM", "speech LM", "flow", "vocoder")  # in the order of `StageIndex`
LARGEST_BATCH = 32  # turns in one decoding call
DECODING = 1  # cache key of all states, as if all were slots of one cache
NO_SOUND = np.zeros(0, np.float32)


class TurnOutput(ChunkQueue):
    """Takes the chunks of a turn as soon as they are there.

    Args:
        simulation: its clock.
        turn: hears them.
        heard: called at the end.
    """

    def __init__(self, simulation: Simulation, turn: SimulatedTurn, heard: Callable[[], None]) -> None:
        super().__init__(Options.unread, lambda held: None)
        self._simulation = simulation
        self._turn = turn
        self._heard = heard

    def put(self, chunk: Chunk) -> None:
        """See `ChunkQueue.put`."""
        self._turn.hear(self._simulation.now(), chunk.duration)

    def end(self, error: BaseException | None = None) -> None:
        """See `ChunkQueue.end`."""
        self._heard()


class OverlappedServer:
    """Sessions that share one device.

    Args:
        model: that answers.
        limits: of the device.
        width: calls that run at once, None for one per stage.
        order: in which sessions are served.
    """

    def __init__(
        self, model: SimulatedModel, limits: DeviceLimits, width: int | None, order: Order = "deadline"
    ) -> None:
        self._model = model
        self._hop = limits.share.hop
        self._pipeline = pipeline_of(model, limits)
        self._calls = StageCalls(self._pipeline.llm, self._pipeline.speech_lm)
        self._running: dict[StageIndex, list[StageCall]] = {}
        self.simulation = Simulation(stages_of(self._end, LARGEST_BATCH), self._begin, width=width, order=order)
        self._sessions: dict[int, int] = {}  # of the load → of the scheduler

    def ask(self, turn: SimulatedTurn, answer: AnswerLength, heard: Callable[[], None]) -> None:
        """See `omni2_bench.simulate.load.Server`."""
        if turn.session not in self._sessions:
            self._sessions[turn.session] = self.simulation.open(_raise, Options.run_ahead)
        queue = ThreadedQueue(self.simulation, self._sessions[turn.session], lambda state: DECODING)
        run = self._turn(answer, queue, TurnOutput(self.simulation, turn, heard))
        queue.begin()
        run.begin()

    def spans(self) -> list[CallSpan]:
        """Calls so far, sessions numbered as in the load."""
        names = {own: session for session, own in self._sessions.items()}
        return [
            CallSpan(STAGES[stage], start, stop, tuple(names[session] for session in sessions))
            for stage, start, stop, sessions in self.simulation.trace
        ]

    def _turn(self, answer: AnswerLength, queue: ThreadedQueue, output: ChunkQueue) -> TurnRun:
        spoken = Exchange(positions=self._model.efforts.config.encoder.positions)
        end = [0] * (self._model.prompt - spoken.positions - BEGINNING)
        # the text ends at its limit; speech ends with a token of its own, long before the limit
        options = Options(max_new_tokens=answer.tokens, max_last_write=answer.units + 1, chunks="growing")
        question = Question(Layout([*[0] * BEGINNING, *spoken.items(), *end], [spoken]), NO_SOUND, options)
        text: Any = ModelState(answer.tokens)
        speech: Any = ModelState(answer.units)
        sound: Any = SoundState()
        prefixes: Any = KeptPrefix(BEGINNING)
        states = TurnStates(speech, sound, seconds=0.0, left_context=0.0, promised=0)
        history, recorder = History([spoken]), Recorder(turn=0)
        return TurnRun(self._pipeline, prefixes, history, text, states, question, queue, output, recorder, Playout())

    def _begin(self, stage: int, tasks: list[Task]) -> float:
        """Begin a call of a stage; the seconds it takes. Steps that are not decoded together follow one another."""
        together = isinstance(tasks[0].step, Decode | Write)
        calls = [StageCall(self._calls, part) for part in ([tasks] if together else [[task] for task in tasks])]
        self._running[StageIndex(stage)] = calls
        return sum(self._hop + call.begin() for call in calls)

    def _end(self, tasks: list[Task]) -> Errors:
        """The time of a call is over."""
        calls = self._running.pop(STAGE_OF[type(tasks[0].step)])
        return [error for call in calls for error in call.end()]


def _raise(error: BaseException) -> None:
    raise error
