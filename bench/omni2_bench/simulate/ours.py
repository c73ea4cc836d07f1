"""Our schedule on a virtual clock: the engine's own turn policy on the engine's own scheduler, with calls that take the
time a model says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from omni2_bench.simulate.device import Effort, Limits
from omni2_bench.simulate.effort import Efforts
from omni2_bench.simulate.load import Answer
from omni2_bench.simulate.model import Model
from omni2_bench.simulate.trace import Span
from omni2_bench.simulate.turns import Turn
from omni2_engine._core import Simulation, Stage
from omni2_engine.options import Options
from omni2_engine.schedule.threaded import READING
from omni2_engine.turn.chunking import ChunkSchedule
from omni2_engine.turn.plan import (
    STAGE_OF,
    Decode,
    Encode,
    Prefill,
    Read,
    RunFlow,
    RunVocoder,
    StageIndex,
    Step,
    TokensPerStep,
    TurnPlan,
    Write,
)

STAGES = ("encoder", "LLM", "speech LM", "flow", "vocoder")  # in the order of `StageIndex`
LARGEST_BATCH = {StageIndex.LLM: 32, StageIndex.SPEECH_LM: 32}  # sessions in one call; the other stages take one
TOKENS = TokensPerStep(text=1, speech=1024)  # a device writes as far as the plan lets it; text gives way to others
DECODING = 1  # key of the steps that are decoded together, as if all sessions' caches were slots of one
Order = Literal["deadline", "arrival"]
Row = Any  # what a stage's effort depends on, one per session in a call


@dataclass
class Task:
    """What begins with a call, which gives what its effort depends on, and what follows when it is done.

    Attributes:
        row: what its call's effort depended on, once that has begun.
    """

    begin: Callable[[], Row]
    done: Callable[[Row], None]
    row: Row = None


@dataclass(frozen=True)
class Positions:
    """A language model's call: positions it is fed, those its cache holds already, and pairs that are fused for it."""

    fed: int
    held: int
    pairs: int = 0


@dataclass(frozen=True)
class Tokens:
    """A burst: how many tokens, positions the cache holds before it, and whether the first one follows from those
    alone, so that it is chosen without a call."""

    count: int
    held: int
    fresh: bool

    @property
    def calls(self) -> int:
        """Of the model, one after another, a position each."""
        return self.count - self.fresh


@dataclass(frozen=True)
class Mel:
    """What the flow makes for one call of the vocoder: frames to compute, the seconds of sound they bring, and whether
    it is the last."""

    frames: int
    seconds: float
    final: bool


class Answering:
    """One turn while it runs: its steps' costs for the scheduler, their results for the policy.

    Args:
        simulation: where tasks go.
        session: of the scheduler.
        model: whose turn it is.
        turn: hears the sound.
        answer: how long it is.
        heard: called when all of it is ready.
        tokens: per step.
    """

    def __init__(
        self,
        simulation: Simulation,
        session: int,
        model: Model,
        turn: Turn,
        answer: Answer,
        heard: Callable[[], None],
        tokens: TokensPerStep,
    ) -> None:
        self._simulation = simulation
        self._session = session
        self._model = model
        self._turn = turn
        self._answer = answer
        self._heard = heard
        chunks = ChunkSchedule(model.hop, model.sound.units.unit_rate, growing=True)
        self._plan = TurnPlan(model.read, model.write, chunks, tokens)
        self._tokens = 0  # of the text
        self._context = 0  # positions of the speech LM
        self._unfed = False  # whether the last speech token is not among those
        self._units = 0  # spoken
        self._left = 0  # units of the present write
        self._seen = 0  # units, by the flow
        self._seconds = 0.0  # of sound in the mel so far
        self._mel: deque[Mel] = deque()  # for the vocoder

    def begin(self) -> None:
        """Take the turn up now."""
        self._simulation.begin(self._session)
        self._submit(self._plan.begin(spoken=True))

    def _submit(self, steps: list[Step]) -> None:
        for step in steps:
            key = -self._session - 1  # no other session has that one
            if isinstance(step, Decode | Write):
                key = DECODING
            elif isinstance(step, Read) and self._context:
                key = READING
            self._simulation.submit(self._session, STAGE_OF[type(step)], self._task(step), key=key)

    def _lead(self) -> float:
        return self._simulation.lead(self._session)

    def _task(self, step: Step) -> Task:
        prompt = self._model.prompt
        match step:
            case Encode():
                return Task(lambda: None, lambda _: self._submit(self._plan.encoded()))
            case Prefill():
                return Task(lambda: Positions(prompt, 0), lambda _: self._wrote(step.tokens))
            case Decode():
                return Task(lambda: self._text(step.tokens), lambda row: self._wrote(row.count))
            case Read():
                return Task(lambda: self._read(step), lambda _: self._spoke(step.tokens))
            case Write():
                return Task(lambda: Tokens(step.tokens, self._context, not self._unfed), self._spoken)
            case RunFlow():
                return Task(lambda: self._render(step), lambda _: self._rendered())
            case RunVocoder():
                return Task(lambda: self._mel[0].frames, lambda _: self._voiced())

    def _text(self, tokens: int) -> Tokens:
        fresh = not self._tokens  # the first of all follows from the prompt
        return Tokens(tokens, self._model.prompt + max(self._tokens - 1, 0), fresh)

    def _read(self, step: Read) -> Positions:
        left = self._answer.units - self._units
        self._left = left if step.final else min(left, self._model.write)
        before = 1 if self._units else 0  # the last unit of the write before goes in with the pairs
        found = Positions(before + step.pairs, self._context, step.pairs)
        self._context += found.fed
        self._unfed = False
        return found

    def _render(self, step: RunFlow) -> tuple[int, int]:
        """Frames that a call of the flow computes, and frames of finished blocks that it sees beside them."""
        call, sound, before = self._plan.flow_begins(step), self._model.sound, self._seen
        self._seen += call.units
        seconds, self._seconds = self._seconds, sound.out(self._seen, call.final)
        frames = sound.vocoded(before, self._seen, call.final)
        self._mel.append(Mel(frames, self._seconds - seconds, call.final))
        finished = sound.finished(before)
        return sound.frames(self._seen, call.final) - finished, finished

    def _wrote(self, tokens: int) -> None:
        tokens = min(tokens, self._answer.tokens - self._tokens)
        self._tokens += tokens
        self._submit(self._plan.decoded(tokens, self._tokens == self._answer.tokens, self._lead()))

    def _spoken(self, burst: Tokens) -> None:
        """What was computed behind a write's end is thrown away again."""
        self._context += burst.calls - (burst.count - max(min(burst.count, self._left), 1))
        self._spoke(burst.count)

    def _spoke(self, tokens: int) -> None:
        units = min(tokens, self._left)
        self._left -= units
        self._units += units
        for _ in range(units):
            self._submit(self._plan.add_units(1, self._lead()))
        self._unfed = self._unfed or tokens > 0
        self._submit(self._plan.wrote(tokens, self._left == 0 and tokens > 0, self._lead()))

    def _rendered(self) -> None:
        self._submit(self._plan.flow_done(self._mel[-1].final, self._lead()))

    def _voiced(self) -> None:
        mel = self._mel.popleft()
        self._turn.hear(self._simulation.now(), mel.seconds)
        if mel.seconds:
            self._simulation.delivered(self._session, mel.seconds)
        if mel.final:
            self._simulation.finish(self._session)
            self._heard()
        else:
            self._submit(self._plan.vocoder_done(self._lead()))


class OverlappedServer:
    """Sessions that share one device.

    Args:
        model: that answers.
        limits: of the device.
        width: calls that run at once, None for one per stage.
        order: in which sessions are served.
        tokens: per step.
    """

    def __init__(
        self,
        model: Model,
        limits: Limits,
        width: int | None,
        order: Order = "deadline",
        tokens: TokensPerStep = TOKENS,
    ) -> None:
        self._model = model
        self._tokens = tokens
        self._limits = limits
        stages = [
            Stage(name, _run, max_batch=LARGEST_BATCH.get(index, 1), priority=-index)
            for index, name in zip(StageIndex, STAGES, strict=True)
        ]
        self.simulation = Simulation(stages, self._seconds, width=width, order=order)
        self._sessions: dict[int, int] = {}  # of the load → of the scheduler

    def ask(self, turn: Turn, answer: Answer, heard: Callable[[], None]) -> None:
        """See `omni2_bench.simulate.load.Server`."""
        if turn.session not in self._sessions:
            self._sessions[turn.session] = self.simulation.open(run_ahead=Options.run_ahead)
        session = self._sessions[turn.session]
        Answering(self.simulation, session, self._model, turn, answer, heard, self._tokens).begin()

    def spans(self) -> list[Span]:
        """Calls so far, sessions numbered as in the load."""
        names = {own: session for session, own in self._sessions.items()}
        return [
            Span(STAGES[stage], start, stop, tuple(names[session] for session in sessions))
            for stage, start, stop, sessions in self.simulation.trace
        ]

    def _seconds(self, stage: int, tasks: list[Task]) -> float:
        rows = [task.begin() for task in tasks]
        if isinstance(rows[0], Tokens):  # as in `StageCalls`, the shortest ends it for all
            rows = [replace(row, count=min(row.count for row in rows)) for row in rows]
        for task, row in zip(tasks, rows, strict=True):
            task.row = row
        return sum(self._limits.seconds(effort) for effort in _calls(self._model.efforts, StageIndex(stage), rows))


def _calls(efforts: Efforts, stage: StageIndex, rows: list[Row]) -> list[Effort]:
    """What runs one after another in one call of the scheduler."""
    match stage:
        case StageIndex.ENCODER:
            return [efforts.encode]
        case StageIndex.LLM if isinstance(rows[0], Tokens):
            return _burst(efforts.extend_llm, rows)
        case StageIndex.LLM:
            return [efforts.extend_llm([(row.fed, row.held) for row in rows])]
        case StageIndex.SPEECH_LM if isinstance(rows[0], Tokens):
            return _burst(efforts.extend_speech, rows)
        case StageIndex.SPEECH_LM:
            return [efforts.extend_speech([(row.fed, row.held)]) + efforts.fuse([row.pairs]) for row in rows]
        case StageIndex.FLOW:
            return [efforts.flow(rows)]
        case StageIndex.VOCODER:
            return [efforts.vocode(rows)]


def _burst(extend: Callable[[list[tuple[int, int]]], Effort], rows: list[Tokens]) -> list[Effort]:
    """One call after another; who is done a call earlier takes no part in the last."""
    most = max(row.calls for row in rows)
    return [extend([(1, row.held + call) for row in rows if row.calls > call]) for call in range(most)]


def _run(tasks: list[Task]) -> None:
    for task in tasks:
        task.done(task.row)
