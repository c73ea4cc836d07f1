"""A turn's data flow under every order in which its stages may finish: nothing lost, nothing twice, nothing stuck."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine.settings.tuning import TURN
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

RATE = 25.0  # units per second


@dataclass(frozen=True)
class Script:
    """What a turn's models will say.

    `units` are those that become certain with each speech token and with the end of each write, over and over; a write
    of index i ends early, after `early[i]` tokens, if there is such an entry.
    """

    read: int
    write: int
    text: int
    last_write: int
    units: list[int]
    early: dict[int, int]
    chunks: ChunkSchedule
    tokens: TokensPerStep = field(default_factory=TokensPerStep)


lengths = st.sampled_from((1, 2, 3, 5, 8, 10**6))  # tokens of a step, on the host and on devices


@st.composite
def scripts(draw: Any, growing: bool = False) -> Script:
    write = draw(st.integers(1, 12))
    return Script(
        read=draw(st.integers(1, 4)),
        write=write,
        text=draw(st.integers(1, 25)),
        last_write=draw(st.integers(1, 40)),
        units=draw(st.lists(st.integers(0, 3), min_size=1, max_size=12)),
        early=draw(st.dictionaries(st.integers(0, 8), st.integers(1, 12), max_size=3)),
        chunks=ChunkSchedule(max(write, draw(st.integers(1, 9))), RATE, growing),
        tokens=TokensPerStep(draw(lengths), draw(lengths)),
    )


class Answer:
    """A turn whose stages run one step at a time each, and finish when the test says so.

    What the plan is told comes in the order in which `TurnRun` tells it; between two such calls other stages may go on.
    """

    def __init__(self, script: Script, lead: Callable[[], float] = lambda: 0.0) -> None:
        self.script = script
        self.plan = TurnPlan(script.read, script.write, script.chunks, script.tokens)
        self._lead = lead
        self.steps: list[Step] = []  # in the order they were queued
        self.heard: list[int] = []  # units, as they became certain
        self.written = self.rendered = self.mel = self.spoken = 0
        self.read: list[Read] = []
        self._writes = 0
        self._left = 0
        self._most: int | None = None  # tokens the write may still be asked for
        self._queues: dict[StageIndex, deque[Step]] = {stage: deque() for stage in StageIndex}
        self._running: dict[StageIndex, Iterator[None]] = {}

    def begin(self) -> None:
        self._submit(self.plan.begin(spoken=False))

    @property
    def busy(self) -> list[StageIndex]:
        """Stages with something to do."""
        return [stage for stage in StageIndex if stage in self._running or self._queues[stage]]

    def advance(self, stage: StageIndex) -> None:
        """Let a stage's oldest step go on: by one call of the plan."""
        if stage not in self._running:
            self._running[stage] = self._run(self._queues[stage].popleft())
        if next(self._running[stage], StopIteration) is StopIteration:
            del self._running[stage]

    def finish(self, choose: Callable[[list[StageIndex]], StageIndex], but: tuple[StageIndex, ...] = ()) -> None:
        """Run all stages but some until nothing of theirs is left to do."""
        while ready := [stage for stage in self.busy if stage not in but]:
            self.advance(choose(ready))

    def of(self, *kinds: type) -> list[Any]:
        """The steps of these kinds, in the order they were queued."""
        return [step for step in self.steps if isinstance(step, kinds)]

    def _submit(self, steps: list[Step]) -> None:
        self.steps += steps
        for step in steps:
            self._queues[STAGE_OF[type(step)]].append(step)

    def _run(self, step: Step) -> Iterator[None]:
        yield from {Prefill: self._write, Decode: self._write, Read: self._speak, Write: self._speak}.get(
            type(step), self._decode
        )(step)

    def _write(self, step: Step) -> Iterator[None]:
        assert isinstance(step, Prefill | Decode)
        assert step.tokens <= self.script.read - self.written % self.script.read  # of one group
        tokens = min(step.tokens, self.script.text - self.written)
        assert tokens > 0 or isinstance(step, Prefill)
        self.written += tokens
        self._submit(self.plan.decoded(tokens, self.written == self.script.text, self._lead()))
        yield

    def _speak(self, step: Step) -> Iterator[None]:
        assert isinstance(step, Read | Write)
        if isinstance(step, Read):
            assert not self._left
            self.read.append(step)
            limit = self.script.last_write if step.final else self.script.write
            self._left = min(limit, self.script.early.get(self._writes, limit))
            self._most = None if step.final else limit
            self._writes += 1
        assert self._left > 0  # else there is nothing to say
        if self._most is not None:
            assert step.tokens <= self._most  # nor is it of two writes
            self._most -= step.tokens
        tokens = min(step.tokens, self._left)
        for _ in range(tokens):
            self._left -= 1
            self._hear()
            yield
        assert tokens or isinstance(step, Read)
        if not self._left:
            self._hear()  # what the end of the write made certain
            yield
        self._submit(self.plan.wrote(tokens, not self._left, self._lead()))
        yield

    def _hear(self) -> None:
        units = self.script.units[len(self.heard) % len(self.script.units)]
        self.heard.append(units)
        self._submit(self.plan.add_units(units, self._lead()))

    def _decode(self, step: Step) -> Iterator[None]:
        if isinstance(step, RunFlow):
            self.rendered += step.units
            assert self.rendered <= sum(self.heard)
            self.mel += 1
            self._submit(self.plan.flow_done(step.final, self._lead()))
        else:
            assert isinstance(step, RunVocoder)
            self.mel -= 1
            assert self.mel >= 0  # there is something to voice
            self.spoken += 1
            if not step.final:
                self._submit(self.plan.vocoder_done(self._lead()))
        yield


def serial(heard: list[int], first: int) -> list[RunFlow]:
    """The flow calls of a plain loop: voice as soon as at least `first` units are unread, at the end the rest."""
    calls, unread = [], 0
    for units in heard:
        unread += units
        if unread >= first:
            calls.append(RunFlow(unread, final=False))
            unread = 0
    return [*calls, RunFlow(unread, final=True)]


def check_text(answer: Answer) -> None:
    """Every token once and in order: groups of R, and a last one; in as few steps as their lengths allow."""
    script = answer.script
    text, speech = min(script.tokens.text, script.read), min(script.tokens.speech, script.write)
    at_once = int(text == 1), int(speech == 1)
    assert answer.written == script.text
    whole, rest = divmod(script.text - 1, script.read)
    steps = whole * -(-script.read // text) + -(-(rest + 1) // text)
    assert answer.of(Prefill) == [Prefill(at_once[0])] and len(answer.of(Decode)) == steps - at_once[0]
    groups = [(script.read, False)] * whole + [(rest + 1, True)]
    assert answer.of(Read) == answer.read == [Read(pairs, final, at_once[1]) for pairs, final in groups]


def check_sound(answer: Answer) -> None:
    """Every unit once, one final call, which is last; a vocoder call for every flow call."""
    renders = answer.of(RunFlow)
    assert sum(call.units for call in renders) == answer.rendered == sum(answer.heard)
    assert [call.final for call in renders] == [False] * (len(renders) - 1) + [True]
    assert answer.of(RunVocoder) == [RunVocoder(call.final) for call in renders]
    assert answer.spoken == len(renders) and answer.mel == 0


@settings(max_examples=300, deadline=None)
@given(script=scripts(), seed=st.integers(0, 2**32))
def test_a_fixed_schedule_gives_what_a_serial_loop_gives(script: Script, seed: int) -> None:
    answer = Answer(script)
    answer.begin()
    answer.finish(Random(seed).choice)
    check_text(answer)
    check_sound(answer)
    assert answer.of(RunFlow) == serial(answer.heard, script.chunks.first)


@settings(max_examples=200, deadline=None)
@given(script=scripts(), text=lengths, speech=lengths, seed=st.integers(0, 2**32))
def test_steps_of_any_length_give_the_same(script: Script, text: int, speech: int, seed: int) -> None:
    random, answers = Random(seed), []
    for tokens in (TokensPerStep(), TokensPerStep(text, speech)):
        answers.append(Answer(Script(**{**vars(script), "tokens": tokens})))
        answers[-1].begin()
        answers[-1].finish(random.choice)
    plain, several = answers
    assert plain.heard == several.heard and plain.written == several.written
    assert [(step.pairs, step.final) for step in plain.read] == [(step.pairs, step.final) for step in several.read]
    assert plain.of(RunFlow) == several.of(RunFlow) and plain.of(RunVocoder) == several.of(RunVocoder)


@settings(max_examples=300, deadline=None)
@given(script=scripts(growing=True), seed=st.integers(0, 2**32))
def test_a_growing_schedule_loses_nothing(script: Script, seed: int) -> None:
    random = Random(seed)
    answer = Answer(script, lead=lambda: random.uniform(-1, 8))
    answer.begin()
    while answer.busy:
        answer.advance(random.choice(answer.busy))
        assert len(answer.of(RunFlow)) - answer.spoken - answer.mel <= 1  # it decides when the flow is free
    check_text(answer)
    check_sound(answer)
    first, most = script.chunks.first, script.chunks.most
    assert all(call.units <= most for call in answer.of(RunFlow))
    assert all(call.units >= first for call in answer.of(RunFlow) if not call.final)


@settings(max_examples=150, deadline=None)
@given(script=scripts(), growing=st.booleans(), seed=st.integers(0, 2**32))
def test_no_stage_is_far_ahead_of_the_next(script: Script, growing: bool, seed: int) -> None:
    script = Script(**{**vars(script), "chunks": ChunkSchedule(script.chunks.first, RATE, growing)})
    random = Random(seed)
    answer = Answer(script, lead=lambda: random.uniform(-1, 8))
    answer.begin()
    step = min(script.tokens.speech, script.write)  # tokens; the end may complete further units
    most_units = TURN.chunks_ahead * script.chunks.most - 1 + (step + 1) * max(script.units)
    weights = [random.random() ** 3 for _ in StageIndex]  # some stage may be very slow
    while answer.busy:
        answer.advance(random.choices(answer.busy, [weights[stage] + 1e-6 for stage in answer.busy])[0])
        assert answer.written - sum(step.pairs for step in answer.of(Read)) <= TURN.groups_ahead * script.read
        assert sum(answer.heard) - answer.rendered <= most_units
    check_sound(answer)


LONG = Script(
    read=3, write=10, text=90, last_write=60, units=[1], early={}, chunks=ChunkSchedule(first=10, unit_rate=RATE)
)


def oldest(ready: list[StageIndex]) -> StageIndex:
    return ready[0]


def test_every_stage_goes_on_while_the_next_is_stuck() -> None:
    answer = Answer(LONG)
    answer.begin()
    answer.finish(oldest, but=(StageIndex.SPEECH_LM,))
    assert answer.written == (1 + TURN.groups_ahead) * LONG.read  # one group is being read
    answer.finish(oldest, but=(StageIndex.FLOW,))
    assert sum(answer.heard) == TURN.chunks_ahead * LONG.chunks.most
    assert answer.written == (TURN.chunks_ahead + TURN.groups_ahead) * LONG.read  # which were read, and wait
    answer.finish(oldest, but=(StageIndex.VOCODER,))
    check_text(answer)
    assert answer.mel == len(answer.of(RunFlow)) and answer.spoken == 0
    answer.finish(oldest)
    check_sound(answer)


def test_text_goes_on_while_the_speech_lm_writes() -> None:
    """As soon as R pairs are there both models have a step queued."""
    answer = Answer(LONG)
    answer.begin()
    while not answer.of(Read):
        answer.advance(StageIndex.LLM)
    assert answer.busy == [StageIndex.LLM, StageIndex.SPEECH_LM]


def test_a_first_chunk_takes_two_steps_of_a_model() -> None:
    """Of a model on a device: R text tokens, then W speech tokens; nothing is waited for in between."""
    answer = Answer(Script(**{**vars(LONG), "tokens": TokensPerStep(1000, 1000)}))
    answer.begin()
    answer.finish(max)
    read, write = LONG.read, LONG.write
    before = answer.steps[: answer.steps.index(RunFlow(write, False))]
    assert answer.of(Prefill, Decode)[:2] == [Prefill(0), Decode(read)]
    assert [step for step in before if isinstance(step, Read | Write)] == [Read(read, False, 0), Write(write)]
    final = answer.steps[answer.steps.index(Read(read, True, 0)) :]
    assert [step for step in final if isinstance(step, Write)] == [Write(write)] * (LONG.last_write // write)


def test_a_turn_without_sound_ends_as_well() -> None:
    answer = Answer(Script(read=3, write=10, text=1, last_write=1, units=[0], early={}, chunks=LONG.chunks))
    answer.begin()
    answer.finish(oldest)
    assert answer.steps == [Prefill(), Read(1, True), RunFlow(0, True), RunVocoder(True)]


@pytest.mark.parametrize(("lead", "fewer"), [(0.0, False), (60.0, True)])
def test_calls_grow_with_the_lead_alone(lead: float, fewer: bool) -> None:
    """With a flow that keeps up, so that nothing waits for it: what is nearest to the sound goes first."""
    script = Script(**{**vars(LONG), "chunks": ChunkSchedule(10, RATE, growing=True)})
    answer = Answer(script, lead=lambda: lead)
    answer.begin()
    answer.finish(max)
    sizes = [call.units for call in answer.of(RunFlow)]
    assert sizes[0] == 10
    assert (max(sizes) == script.chunks.most) if fewer else (set(sizes[:-1]) == {10})
    assert fewer == (len(sizes) < len(serial(answer.heard, 10)))


def test_a_spoken_question_is_encoded_first() -> None:
    plan = TurnPlan(3, 10, LONG.chunks)
    assert plan.begin(spoken=True) == [Encode()]
    assert plan.encoded() == TurnPlan(3, 10, LONG.chunks).begin(spoken=False) == [Prefill()]
