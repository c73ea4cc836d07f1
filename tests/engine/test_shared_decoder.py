"""Flow and vocoder calls that several turns share: each gets, to the bit, what it would get alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine import Engine
from omni2_engine.backends.onnxruntime import OnnxRuntimeBackend
from omni2_engine.session import Session
from omni2_engine.speech_decoder import SpeechDecoder
from omni2_engine.stages.flow import Flow, FlowCall, FlowState
from omni2_engine.stages.graph_state import GraphState
from omni2_engine.stages.shared_graph import SharedGraph
from omni2_engine.stages.vocoder import Vocoder, VocoderState
from omni2_engine.states import TurnStates

SESSIONS = 6
LIMITS = {"max_new_tokens": 20, "max_last_write": 60}
VICTIM = 2
SOON = 60.0
Utterance = Callable[..., np.ndarray]
IsFree = Callable[[Engine], bool]


@pytest.fixture(scope="module")
def sharing(tiny_engine_dir: Path) -> Engine:
    """An engine whose flow and vocoder calls are shared, and whose stages all run at once, as on a GPU."""
    backend = OnnxRuntimeBackend(threads=1, shares_decoder_calls=True)
    backend.width = None
    return Engine.load(tiny_engine_dir, warm_up=False, sessions=SESSIONS, backend=backend)


@pytest.fixture(scope="module")
def solo(tiny_engine: Engine) -> SpeechDecoder:
    """Flow and vocoder of an engine for one session."""
    return tiny_engine.pipeline.decoder


def test_who_shares(sharing: Engine, solo: SpeechDecoder, shared_engine: Engine) -> None:
    assert sharing.pipeline.decoder.flow.most_at_once > 1
    assert sharing.pipeline.decoder.vocoder.most_at_once == SESSIONS
    for decoder in (solo, shared_engine.pipeline.decoder):  # on a CPU they do not unless asked to
        assert decoder.flow.most_at_once == decoder.vocoder.most_at_once == 1


# -- stages ------------------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """One turn of random units, in chunks of random length, rendered twice over."""

    units: list[int]
    chunks: list[int]
    together: FlowState
    alone: FlowState
    said: int = 0

    @property
    def over(self) -> bool:
        return not self.chunks

    def next(self) -> tuple[list[int], bool]:
        """Units of the next call, and whether it is the final one."""
        count = self.chunks.pop(0)
        self.said += count
        return self.units[self.said - count : self.said], self.over


def answers(random: Random, sharing: Flow, solo: Flow, count: int, left_context: float | None) -> Iterator[Answer]:
    embeddings = np.random.default_rng(random.randrange(99)).standard_normal((count, sharing.config.speaker))
    for embedding in embeddings.astype(np.float32):
        voice = sharing.speaker_features(embedding)
        chunks = [random.choice([1, 8, 10, 10, 10, 20, 47, 50, 60]) for _ in range(random.randint(1, 5))] + [
            random.choice([0, 1, 5, 30])
        ]
        units = [random.randrange(sharing.units_config.units) for _ in range(sum(chunks))]
        states = (flow.new_state(voice, left_context=left_context) for flow in (sharing, solo))
        yield Answer(units, chunks, *states)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), left_context=st.sampled_from([None, 4.0, 2.0]))
def test_mel_is_that_of_each_alone(sharing: Engine, solo: SpeechDecoder, seed: int, left_context: float | None) -> None:
    """Whoever comes together, wherever each is in its turn: across edges of blocks, with old blocks dropped, in final
    calls, and with nothing to give out yet."""
    random, flow = Random(seed), sharing.pipeline.decoder.flow
    turns = list(answers(random, flow, solo.flow, random.randint(2, 5), left_context))
    while live := [turn for turn in turns if not turn.over]:
        taking_part = random.sample(live, random.randint(1, len(live)))
        calls = [(turn, *turn.next()) for turn in taking_part]
        together = flow.finish([flow.begin(turn.together, units, final) for turn, units, final in calls])
        for (turn, units, final), mine in zip(calls, together, strict=True):
            alone = solo.flow.step(turn.alone, units, final)
            assert (mine.start, mine.new) == (alone.start, alone.new)
            assert np.array_equal(mine.mel, alone.mel)
    for turn in turns:
        assert turn.together.voiced == turn.alone.voiced == len(turn.units)


def test_a_shared_call_leaves_other_turns_as_they_are(sharing: Engine, solo: SpeechDecoder) -> None:
    """A turn whose call has begun and is finished later; one that does not take part."""
    flow = sharing.pipeline.decoder.flow
    turns = list(answers(Random(3), flow, solo.flow, 5, None))
    for turn in turns:
        turn.chunks[:] = [30, 40, 20]
        turn.units[:] = turn.units[:1] * 90
    late = flow.begin(turns[0].together, turns[0].units[:30], False)
    flow.finish([flow.begin(turn.together, turn.units[:30], False) for turn in turns[1:4]])
    flow.finish([flow.begin(turn.together, turn.units[30:70], False) for turn in turns[1:3]])
    for turn, mine in ((turns[0], flow.finish([late])[0]), (turns[4], flow.step(turns[4].together, [7] * 30, False))):
        units = turns[0].units[:30] if turn is turns[0] else [7] * 30
        assert np.array_equal(mine.mel, solo.flow.step(turn.alone, units, False).mel)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_sound_is_that_of_each_alone(sharing: Engine, solo: SpeechDecoder, seed: int) -> None:
    """First calls, calls in the middle and last ones, of shapes that agree and that do not."""
    random, vocoder = Random(seed), sharing.pipeline.decoder.vocoder
    count, rng = random.randint(2, 8), np.random.default_rng(seed)

    def states(stage: Vocoder) -> list[VocoderState]:
        return [stage.new_state() for _ in range(count)]

    together, alone = states(vocoder), states(solo.vocoder)
    for call in range(random.randint(1, 3)):
        draws, mels, finals = [], [], []
        for turn in range(count):
            final = random.random() < 0.3
            frames = random.choice([8, 20, 20, 20, 33]) if not final else random.choice([0, 5, 20])
            mels.append(3 * rng.standard_normal((frames, vocoder.config.mel), dtype=np.float32))
            draws.append(solo.draws(turn, 0, call))
            finals.append(final)
        parts = list(zip(together, mels, draws, finals, strict=True))
        sounds = vocoder.finish([vocoder.begin(*part) for part in parts])
        for mine, state, (_, mel, drawn, final) in zip(sounds, alone, parts, strict=True):
            assert np.array_equal(mine, solo.vocoder.step(state, mel, drawn, final))
        for pair in zip(together, alone, strict=True):
            for kept in ("mel", "source", "tail"):
                assert np.array_equal(*(getattr(state, kept) for state in pair))
    assert len({sound.ctypes.data for sound in sounds if len(sound)}) == sum(len(sound) > 0 for sound in sounds)


# -- conversations -----------------------------------------------------------------------------------------------------


def answer(asked: Engine | Session, utterance: Utterance, number: int) -> np.ndarray:
    """One turn, different for every number; its sound."""
    chunks = asked.stream(utterance(number, 0.4 + 0.1 * number), sample_rate=16_000, seed=number, **LIMITS)
    return np.concatenate([np.zeros(0, np.float32), *(chunk.pcm for chunk in chunks)])


@contextmanager
def watched(engine: Engine, before: Callable[[list[Any]], object] = lambda calls: None) -> Iterator[list[int]]:
    """How many turns every call of flow and vocoder served. Calls take long, so that others come meanwhile; `before`
    is called with what one call of the flow is to finish."""
    sizes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        for stage in ("flow", "vocoder"):
            part: Any = getattr(engine.pipeline.decoder, stage)

            def finish(calls: list[Any], stage: str = stage, real: Callable[..., Any] = part.finish) -> Any:
                sizes.append(len(calls))
                time.sleep(0.02)
                if stage == "flow":
                    before(calls)
                return real(calls)

            patch.setattr(part, "finish", finish)
        yield sizes


class Crowd:
    """Several turns at once, each in a thread of its own; what each gave, or what it ended with."""

    def __init__(self, works: dict[int, Callable[[], np.ndarray]]) -> None:
        self.sounds: dict[int, np.ndarray] = {}
        self.errors: dict[int, BaseException] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(number, work), name=str(number), daemon=True)
            for number, work in works.items()
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, work: Callable[[], np.ndarray]) -> None:
        try:
            self.sounds[number] = work()
        except BaseException as error:
            self.errors[number] = error

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(SOON)
        assert not any(thread.is_alive() for thread in self._threads)


@contextmanager
def flow_states(engine: Engine) -> Iterator[dict[int, FlowState]]:
    """Whose flow has which state, of those of a `Crowd`."""
    found: dict[int, FlowState] = {}
    begin = engine.states.begin

    def watched_begin(*arguments: Any) -> TurnStates:
        states = begin(*arguments)
        flow = states.decoder.flow
        for number in [number for number, state in found.items() if state is flow]:
            del found[number]  # that turn has ended, and left its memory to this one
        found[int(threading.current_thread().name)] = flow
        return states

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.states, "begin", watched_begin)
        yield found


def everyone(engine: Engine, utterance: Utterance) -> dict[int, Callable[[], np.ndarray]]:
    return {number: partial(answer, engine, utterance, number) for number in range(SESSIONS)}


@pytest.fixture(scope="module")
def alone(tiny_engine: Engine, utterance: Utterance) -> dict[int, np.ndarray]:
    """What everyone gets on an engine for one."""
    sounds = {number: work() for number, work in everyone(tiny_engine, utterance).items()}
    assert len({sound.tobytes() for sound in sounds.values()}) == SESSIONS
    return sounds


def others_are_as_alone(crowd: Crowd, alone: dict[int, np.ndarray], but: Collection[int] = ()) -> bool:
    return all(np.array_equal(crowd.sounds[number], alone[number]) for number in range(SESSIONS) if number not in but)


def test_conversations_that_share_calls_answer_as_alone(
    sharing: Engine, utterance: Utterance, is_free: IsFree, alone: dict[int, np.ndarray]
) -> None:
    with watched(sharing) as sizes:
        crowd = Crowd(everyone(sharing, utterance))
        crowd.wait()
    assert not crowd.errors and others_are_as_alone(crowd, alone)
    assert max(sizes) >= 3 and sum(sizes) > 1.5 * len(sizes)
    assert is_free(sharing)


def test_one_is_cancelled_while_others_share_its_call(
    sharing: Engine, utterance: Utterance, is_free: IsFree, alone: dict[int, np.ndarray]
) -> None:
    shared_with: list[int] = []
    with flow_states(sharing) as whose, sharing.session() as victim:

        def cancel(calls: list[FlowCall]) -> None:
            if len(calls) > 1 and not shared_with and any(call.state is whose.get(VICTIM) for call in calls):
                shared_with.append(len(calls) - 1)
                victim.cancel()

        with watched(sharing, cancel):
            crowd = Crowd(everyone(sharing, utterance) | {VICTIM: partial(answer, victim, utterance, VICTIM)})
            crowd.wait()
        assert victim.metrics is not None and victim.metrics.finish_reason == "cancelled"
    assert shared_with and not crowd.errors and others_are_as_alone(crowd, alone, but={VICTIM})
    assert len(crowd.sounds[VICTIM]) < len(alone[VICTIM])
    assert is_free(sharing)


def test_an_error_in_what_a_turn_does_for_itself_is_its_own(
    sharing: Engine,
    utterance: Utterance,
    is_free: IsFree,
    alone: dict[int, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = sharing.pipeline.decoder.flow.begin

    def failing(state: FlowState, units: list[int], final: bool) -> FlowCall:
        if state is whose.get(VICTIM) and state.voiced > 10:
            raise MemoryError
        return begin(state, units, final)

    monkeypatch.setattr(sharing.pipeline.decoder.flow, "begin", failing)
    with flow_states(sharing) as whose, watched(sharing) as sizes:
        crowd = Crowd(everyone(sharing, utterance))
        crowd.wait()
    assert isinstance(crowd.errors.pop(VICTIM), MemoryError) and not crowd.errors
    assert others_are_as_alone(crowd, alone, but={VICTIM}) and max(sizes) > 1
    assert is_free(sharing)


def test_an_error_of_a_shared_call_ends_those_who_share_it(
    sharing: Engine,
    utterance: Utterance,
    is_free: IsFree,
    alone: dict[int, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed: set[int] = set()
    run = SharedGraph.run

    def failing(graph: SharedGraph, states: list[GraphState], *arguments: Any) -> Any:
        if not failed:
            failed.update(number for number, state in whose.items() if state.steps[0] in states)
            assert len(failed) == len(states) > 1
            raise RuntimeError("the device is gone")
        return run(graph, states, *arguments)

    monkeypatch.setattr(SharedGraph, "run", failing)
    with flow_states(sharing) as whose, watched(sharing):
        crowd = Crowd(everyone(sharing, utterance))
        crowd.wait()
    assert set(crowd.errors) == failed and {str(error) for error in crowd.errors.values()} == {"the device is gone"}
    assert others_are_as_alone(crowd, alone, but=failed)
    assert is_free(sharing)
