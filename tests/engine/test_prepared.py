"""Turns that are prepared before they are asked for: what is committed is what would have been streamed, what is taken
back leaves no trace."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni2_engine import BusyError, Chunk, Engine, Prepared, Session
from omni2_engine.errors import AudioError, CapacityError, ContextError, SettingError
from omni2_engine.memory.budget import Admission
from omni2_engine.memory.states import StatePool, TurnStates
from omni2_engine.sampling import Stream
from omni2_engine.stages.encoder import SpeechEncoder

from ..waiting import SOON, Moment, Moments, eventually, let_others_run

LIMITS = {"max_new_tokens": 8, "max_last_write": 14, "seed": 3}
AHEAD = 30  # inline steps of two chunks: encoder, prefill and three groups of tokens, reads and writes, flow, vocoder
Utterance = Callable[..., np.ndarray]
IsFree = Callable[[Engine], bool]


@pytest.fixture(scope="module")
def inline(tiny_engine_dir: Path) -> Engine:
    return Engine.load(tiny_engine_dir, threads=1, warm_up=False, schedule="inline")


@pytest.fixture
def moments() -> Moments:
    return Moments()


@pytest.fixture
def counted(tiny_engine_dir: Path, moments: Moments) -> Engine:
    """The tiny engine, on the scheduler's threads, whose runs of graphs are counted."""
    return Engine.load(tiny_engine_dir, warm_up=False, sessions=2, backend=moments.backend())


def pcm(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *(chunk.pcm for chunk in chunks)])


def plain(session: Session, audio: np.ndarray, **options: Any) -> list[Chunk]:
    return list(session.stream(audio, sample_rate=16_000, **options))


def prepared(session: Session, audio: np.ndarray, steps: int = 0, **options: Any) -> Prepared:
    """A turn that is prepared, after `steps` inline steps, if it takes as many."""
    turn = session.prepare(audio, sample_rate=16_000, **options)
    for _ in range(steps):
        turn.advance()
    return turn


def rested(turn: Prepared) -> Prepared:
    assert eventually(lambda: turn.rests) and turn.ready
    return turn


def rests_or(engine: Engine, turn: Prepared, moment: Moment) -> None:
    """Waits for the moment, or until the turn has its chunks and rests; how far its text is by then may differ."""
    eventually(lambda: moment.reached.is_set() or (turn.rests and not engine.scheduler.counts()[2]))


def shown(chunks: list[Chunk]) -> list[tuple[Any, ...]]:
    """Everything about chunks that does not depend on the clock."""
    return [(c.pcm.tobytes(), c.index, c.start, c.text, c.spoken, c.units, c.final, c.finish_reason) for c in chunks]


def remembered(session: Session) -> tuple[Any, ...]:
    """All that a session keeps from turn to turn, the KV cache's filled positions included."""
    state = session._state
    assert state.held.conversation is not None
    cache, history, metrics = state.held.conversation.state, state.history, state.metrics
    assert cache.length >= len(history.fed)
    filled = {name: np.array(view) for name, view in cache.cache.filled(cache.index, len(history.fed)).items()}
    exchanges = [(e.first_item, e.text, list(e.reply), None if e.speech is None else e.speech.tobytes())
                 for e in history.exchanges]  # fmt: skip
    counts = metrics and (metrics.turn, metrics.prompt_positions, metrics.reused_positions, metrics.dropped_turns,
                          metrics.text_tokens, metrics.speech_tokens, metrics.units, metrics.chunks)  # fmt: skip
    kept = {name: view.tobytes() for name, view in sorted(filled.items())}
    return exchanges, list(history.fed), list(history.rounds), session.history, state.turns, counts, kept


# -- taken back --------------------------------------------------------------------------------------------------------


def test_a_thousand_turns_taken_back_leave_no_trace(inline: Engine, utterance: Utterance) -> None:
    """At random moments, between three turns of which the first is interrupted; the answers are equal to the bit."""
    random = Random(15)
    recent = list(inline.runtime.playout._recent)
    with inline.session(**LIMITS) as one, inline.session(**LIMITS) as other:
        for turn in range(3):
            before, metrics = remembered(other) if turn else None, other.metrics
            for number in range(334):
                steps = min(int(random.expovariate(0.5)), AHEAD)
                prepared(other, utterance(100 + number), steps).take_back()
            assert turn == 0 or remembered(other) == before
            assert other.metrics is metrics and inline.waiting == 0
            assert turn > 0 or list(inline.runtime.playout._recent) == recent
            answers = [plain(session, utterance(turn)) for session in (one, other)]
            if turn == 0:
                for session in (one, other):
                    session.interrupt(0.5)
            assert shown(answers[0]) == shown(answers[1]) and len(pcm(answers[0]))
            assert remembered(one) == remembered(other)
    counts = inline.prepared_turns
    assert counts.prepared == counts.taken_back == 3 * 334 and counts.wasted > 0 == counts.saved
    assert inline.states.budget.used == 0


turns = st.lists(
    st.tuples(
        st.lists(st.integers(0, AHEAD + 2), max_size=3),  # steps of turns that are taken back
        st.one_of(st.none(), st.integers(0, AHEAD + 2)),  # steps of the one that is committed; None: it is streamed
        st.one_of(st.none(), st.floats(0, 2)),  # seconds heard of it, if it is interrupted
        st.one_of(st.none(), st.integers(0, 1)),  # earlier turns that it takes into account
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(turns=turns)
def test_whatever_is_prepared_a_conversation_is_what_is_committed(
    inline: Engine, utterance: Utterance, turns: list[tuple[list[int], int | None, float | None, int | None]]
) -> None:
    with inline.session(**LIMITS) as one, inline.session(**LIMITS) as other:
        for number, (taken_back, committed, heard, earlier) in enumerate(turns):
            for place, steps in enumerate(taken_back):
                otherwise: dict[str, Any] = {
                    "history_turns": place % 2 or None,
                    "system": ("Be brief.", None)[place % 2],
                }
                prepared(other, utterance(50 + place), steps, **otherwise).take_back()
            expected = plain(one, utterance(number), history_turns=earlier)
            if committed is None:
                found = plain(other, utterance(number), history_turns=earlier)
            else:
                found = list(prepared(other, utterance(number), committed, history_turns=earlier).commit())
            assert shown(found) == shown(expected)
            if heard is not None:
                one.interrupt(heard)
                other.interrupt(heard)
            assert remembered(one) == remembered(other)


def test_taken_back_on_threads_at_every_moment(
    counted: Engine, utterance: Utterance, is_free: IsFree, moments: Moments
) -> None:
    """Every run of a graph up to the second chunk is held once, and the turn is taken back meanwhile."""
    with counted.session(**LIMITS) as session:
        expected = shown_sound(plain(session, utterance(1)))
    with counted.session(**LIMITS) as session:
        before = moments.runs.total()
        rested(prepared(session, utterance(2))).take_back()
        runs = moments.runs.total() - before
        assert runs > AHEAD
        for number in range(runs):
            moment = moments.at(number, held=True)
            turn = prepared(session, utterance(2 + number % 3))
            rests_or(counted, turn, moment)
            leaving = threading.Thread(target=turn.take_back, daemon=True)
            leaving.start()
            eventually(lambda turn=turn: not turn.begun)
            moment.let_through()
            leaving.join(SOON)
            assert not leaving.is_alive()
            over = moments.runs.total()
            let_others_run(3)
            assert moments.runs.total() == over  # the step that was held has finished, and none followed
        assert counted.waiting == 0 and counted.scheduler.counts() == (1, 0, 0)
        assert shown_sound(plain(session, utterance(1))) == expected
    assert is_free(counted)


def shown_sound(chunks: list[Chunk]) -> tuple[bytes, str, list[int]]:
    """What does not depend on how far the text is ahead of the sound."""
    return pcm(chunks).tobytes(), "".join(chunk.text for chunk in chunks), [chunk.units for chunk in chunks]


# -- committed ---------------------------------------------------------------------------------------------------------


def test_committed_after_any_number_of_steps(inline: Engine, utterance: Utterance) -> None:
    """Chunks, text as it is told, and what is remembered are those of a turn that was streamed."""
    table = inline.pipeline.unit_table.table
    unit = np.flatnonzero((table >= 0) & (table < inline.config.flow_encoder.units))[0]
    script = {Stream.SPEECH: [int(unit)] * 60}
    with inline.session(**LIMITS) as session:
        turn = prepared(session, utterance(1), forced=script)
        ahead = sum(1 for _ in iter(turn.advance, False))
        assert turn.ready and turn.rests and ahead > 10
        turn.take_back()
    for steps in range(ahead + 2):
        told: list[list[str]] = [[], []]
        with inline.session(**LIMITS) as one, inline.session(**LIMITS) as other:
            expected = plain(one, utterance(1), on_text=told[0].append, forced=script)
            turn = prepared(other, utterance(1), steps, on_text=told[1].append, forced=script)
            assert told[1] == [] and turn.rests == (steps >= ahead) and turn.begun
            found = list(turn.commit())
            assert shown(found) == shown(expected) and told[0] == told[1] != []
            assert remembered(one) == remembered(other)


@pytest.mark.parametrize("chunks", ["fixed", "growing"])
def test_committed_on_threads_at_every_moment(
    counted: Engine, utterance: Utterance, moments: Moments, chunks: Literal["fixed", "growing"]
) -> None:
    """While a run of a graph is held, and when all of them rest."""
    with counted.session(**LIMITS, chunks=chunks) as session:
        expected = plain(session, utterance(1))
    with counted.session(**LIMITS, chunks=chunks) as session:
        before = moments.runs.total()
        rested(prepared(session, utterance(1))).take_back()
        runs = moments.runs.total() - before
    for number in [*range(0, runs, 3), None]:
        with counted.session(**LIMITS, chunks=chunks) as session:
            if number is None:
                answer = rested(prepared(session, utterance(1))).commit()
            else:
                moment = moments.at(number, held=True)
                turn = prepared(session, utterance(1))
                rests_or(counted, turn, moment)
                answer = turn.commit()
                moment.let_through()
            found = list(answer)
            assert "".join(chunk.text for chunk in found) == "".join(chunk.text for chunk in expected)
            assert found[-1].finish_reason == expected[-1].finish_reason
            if chunks == "fixed":
                assert shown_sound(found) == shown_sound(expected)
            else:  # where a chunk ends depends on the player's lead
                assert found[-1].units == expected[-1].units


async def acollect(answer: Any) -> list[Chunk]:
    return [chunk async for chunk in answer]


def test_a_committed_answer_is_for_coroutines_too(counted: Engine, utterance: Utterance) -> None:
    import asyncio

    with counted.session(**LIMITS) as session:
        expected = shown_sound(plain(session, utterance(1)))
    with counted.session(**LIMITS) as session:
        answer = prepared(session, utterance(1)).commit()
        assert shown_sound(asyncio.run(acollect(answer))) == expected


def test_it_rests_with_two_chunks(counted: Engine, utterance: Utterance, moments: Moments) -> None:
    with counted.session(**LIMITS) as session:
        turn = rested(prepared(session, utterance(1)))
        eventually(lambda: counted.scheduler.counts()[2] == 0)
        runs = moments.runs.copy()
        assert runs["vocoder"] == runs["flow_encoder"] == 2
        let_others_run()
        assert moments.runs == runs
        assert len(list(turn.commit())) > 1


def test_metrics_say_what_it_saved(counted: Engine, utterance: Utterance) -> None:
    with counted.session(**LIMITS) as session:
        plain(session, utterance(1))
        assert session.metrics is not None and session.metrics.speculated_seconds == 0.0
        before = session.metrics
        turn = rested(prepared(session, utterance(2)))
        assert session.metrics is before
        list(turn.commit())
        metrics = session.metrics
        assert metrics is not before and metrics.turn == 1
        ahead = [span for span in metrics.spans if span.start < 0]
        assert {span.stage for span in ahead} >= {"encoder", "prefill", "decode", "fusion", "flow", "vocoder"}
        assert metrics.speculated_seconds > 0 and metrics.first_text == 0.0
        assert metrics.first_chunk is not None and metrics.first_chunk >= metrics.first_chunk_synthesis >= 0
        assert metrics.first_chunk_llm == 0.0 and metrics.record()["speculated_seconds"] > 0
        rested(prepared(session, utterance(3))).take_back()
        counts = counted.prepared_turns
        assert (counts.prepared, counts.refused, counts.committed, counts.taken_back) == (2, 0, 1, 1)
        assert counts.saved == metrics.speculated_seconds and counts.wasted > 0


def test_a_step_that_fails_ahead_costs_nothing(
    counted: Engine, utterance: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn begins anew when it is committed."""
    encode, failed = SpeechEncoder.__call__, threading.Event()

    def once(encoder: SpeechEncoder, log_mel: np.ndarray) -> np.ndarray:
        if not failed.is_set():
            failed.set()
            raise KeyError("broken")
        return encode(encoder, log_mel)

    with counted.session(**LIMITS) as session:
        expected = shown_sound(plain(session, utterance(1)))
    monkeypatch.setattr(SpeechEncoder, "__call__", once)
    with counted.session(**LIMITS) as session:
        turn = prepared(session, utterance(1))
        eventually(lambda: session._state.turn is not None and session._state.turn.failed)
        assert shown_sound(list(turn.commit())) == expected


def test_an_interruption_while_it_is_committed(
    counted: Engine, utterance: Utterance, is_free: IsFree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another thread, which ends the turn before `commit` has returned."""
    keep = StatePool.keep

    def interrupted(pool: StatePool, states: TurnStates) -> None:
        session.interrupt(0.0)
        keep(pool, states)

    with counted.session(**LIMITS) as session:
        with monkeypatch.context() as patched:
            patched.setattr(StatePool, "keep", interrupted)
            turn = rested(prepared(session, utterance(1)))
            assert [chunk.finish_reason for chunk in turn.commit()][-1:] == ["cancelled"]
        assert plain(session, utterance(1))[-1].finish_reason != "cancelled"
    assert is_free(counted)


# -- who else is there -------------------------------------------------------------------------------------------------


def test_it_is_none_of_those_that_wait(
    tiny_engine_dir: Path, utterance: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `max_waiting` at 0 only a turn whose sound is there can be committed."""
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False, max_waiting=0)
    with engine, engine.session(**LIMITS) as session:
        for _ in range(2):
            with pytest.raises(BusyError):
                session.stream(utterance(1), sample_rate=16_000)
            turn = prepared(session, utterance(1))
            assert engine.waiting == 0 and turn.begun
            assert list(rested(turn).commit())[-1].final
        go, encode = threading.Event(), SpeechEncoder.__call__

        def waiting(encoder: SpeechEncoder, log_mel: np.ndarray) -> np.ndarray:
            assert go.wait(SOON)
            return encode(encoder, log_mel)

        monkeypatch.setattr(SpeechEncoder, "__call__", waiting)
        turn = prepared(session, utterance(1))
        with ThreadPoolExecutor(1) as pool:
            committed = pool.submit(turn.commit)
            eventually(lambda: not turn.begun)
            go.set()
            assert isinstance(committed.exception(SOON), BusyError)
        assert list(rested(prepared(session, utterance(1))).commit())[-1].final
        assert len(session.history) == 3


def test_its_first_chunk_is_enough_to_be_asked_for(tiny_engine_dir: Path, utterance: Utterance) -> None:
    """It does not wait for a place, though the second chunk is still to be made."""
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False, max_waiting=0, schedule="inline")
    with engine, engine.session(**LIMITS) as session:
        turn = prepared(session, utterance(1))
        while not turn.ready:
            assert turn.advance()
        assert not turn.rests
        assert list(turn.commit())[-1].final


def with_room(engine_dir: Path, conversations: int, turns: float, admission: str, **options: Any) -> Engine:
    """An engine whose memory does for these numbers of conversations and turns."""
    probe = Engine.load(engine_dir, threads=1, warm_up=False)
    limits = (LIMITS["max_new_tokens"], LIMITS["max_last_write"])
    if admission != Admission.REFUSE:
        limits = (256, 1024)  # what is kept free for one that waits, and has sound enough to be shortened
    positions = probe.pipeline.speech_positions(*limits)
    turn = probe.states._turn_sizes(positions, positions / probe.config.flow_encoder.unit_rate)[1]
    memory = conversations * probe.states._conversations.slot_nbytes + int(turns * turn)
    probe.close()
    return Engine.load(engine_dir, threads=1, warm_up=False, memory=memory, admission=admission, **options)


@pytest.mark.parametrize("admission", ["refuse", "shorten", "wait"])
def test_a_turn_that_is_asked_for_gets_its_memory(
    tiny_engine_dir: Path, utterance: Utterance, is_free: IsFree, admission: str
) -> None:
    limits = LIMITS if admission == "refuse" else {**LIMITS, "max_new_tokens": 256, "max_last_write": 1024}
    engine = with_room(tiny_engine_dir, 2, 1.5, admission)
    with engine:
        with engine.session(**limits) as session:
            expected = shown_sound(plain(session, utterance(1)))
        with engine.session(**limits) as one, engine.session(**limits) as other:
            turn = rested(prepared(one, utterance(1)))
            answer = other.stream(utterance(2), sample_rate=16_000)
            assert not turn.begun and engine.prepared_turns.taken_back == 1
            if admission == "refuse":
                assert not prepared(one, utterance(1)).begun
                refused = prepared(one, utterance(1))
                with pytest.raises(CapacityError):
                    refused.commit()
            context = other._state.turn.states.left_context  # type: ignore[union-attr]
            assert list(answer)[-1].final and context == engine.pipeline.decoder.flow.left_context
            assert shown_sound(list(turn.commit())) == expected
            again = prepared(one, utterance(1))
            assert again.begun
            again.take_back()
        assert is_free(engine)


def test_it_is_not_begun_while_others_wait(tiny_engine_dir: Path, utterance: Utterance) -> None:
    engine = with_room(tiny_engine_dir, 3, 1, "wait")
    limits = {**LIMITS, "max_new_tokens": 256, "max_last_write": 1024}
    with engine, engine.session(**limits) as one, engine.session(**limits) as two, engine.session(**limits) as three:
        running = one.stream(utterance(1), sample_rate=16_000)
        next(running)
        asked = threading.Thread(target=lambda: plain(two, utterance(2)), daemon=True)
        asked.start()
        eventually(lambda: engine.states.budget.waiting)
        turn = prepared(three, utterance(3))
        assert not turn.begun and engine.prepared_turns.refused == 1
        assert three._state.held.conversation is None
        running.close()
        asked.join(SOON)
        assert not asked.is_alive() and list(turn.commit())[-1].final


def test_others_wait_for_one_call_of_it_at_most(shared_engine: Engine, utterance: Utterance) -> None:
    before = shared_engine.scheduler.speculation()
    with shared_engine.session(**LIMITS) as one, shared_engine.session(**LIMITS) as other:
        expected = shown_sound(plain(one, utterance(1)))
        stop = threading.Event()

        def speculate() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                turn = prepared(other, utterance(number))
                let_others_run(number % 5)
                turn.take_back()

        thread = threading.Thread(target=speculate, daemon=True)
        thread.start()
        eventually(lambda: shared_engine.scheduler.speculation()[0] > before[0])
        with shared_engine.session(**LIMITS) as asking:
            assert shown_sound(plain(asking, utterance(1))) == expected
        stop.set()
        thread.join(SOON)
        assert not thread.is_alive()
    calls, _, longest = shared_engine.scheduler.speculation()
    assert calls > before[0] and longest <= 1


# -- one at a time -----------------------------------------------------------------------------------------------------


def test_a_session_has_one_turn(inline: Engine, utterance: Utterance) -> None:
    with inline.session(**LIMITS) as session:
        turn = prepared(session, utterance(1))
        for forbidden in (
            lambda: plain(session, utterance(2)),
            lambda: prepared(session, utterance(2)),
            lambda: session.truncate(0),
            lambda: session.interrupt(0),
        ):
            with pytest.raises(SettingError, match="is prepared"):
                forbidden()
        session.cancel()  # there is nothing that was asked for
        answer = turn.commit()
        with pytest.raises(SettingError, match="is running"):
            prepared(session, utterance(2))
        for again in (turn.commit, turn.take_back):
            with pytest.raises(SettingError, match="was committed"):
                again()
        assert list(answer)[-1].final
        turn = prepared(session, utterance(2))
        turn.take_back()
        turn.take_back()
        with pytest.raises(SettingError, match="was taken back"):
            turn.commit()
        assert len(session.history) == 1


def test_what_cannot_be_prepared_leaves_the_session_as_it_was(tiny_engine_dir: Path, utterance: Utterance) -> None:
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False, max_context=150)
    options: dict[str, Any] = {"max_new_tokens": 8, "max_last_write": 14}
    with engine, engine.session(**options) as session:
        for error, audio, more in (
            (AudioError, np.zeros(0, np.float32), {}),
            (ContextError, utterance(1), {"max_new_tokens": 40}),
            (SettingError, utterance(1), {"sede": 1}),
            (SettingError, utterance(1), {"voice": "none"}),
            (SettingError, utterance(1), {"steer": print}),
            (SettingError, None, {"text": "hello"}),
        ):
            with pytest.raises(error):
                session.prepare(audio, sample_rate=16_000, **more)  # type: ignore[arg-type]
            assert engine.states._running == 0 and session._state.turn is None
        assert plain(session, utterance(1))[-1].final


def test_one_that_is_dropped_is_taken_back(shared_engine: Engine, utterance: Utterance, is_free: IsFree) -> None:
    session = shared_engine.session(**LIMITS)
    prepared(session, utterance(1))
    assert eventually(lambda: session._state.turn is None)
    assert plain(session, utterance(1))[-1].final
    turn = prepared(session, utterance(1))
    session.close()
    assert not turn.begun
    with pytest.raises(SettingError, match="closed"):
        turn.commit()
    other = shared_engine.session(**LIMITS)
    turn = prepared(other, utterance(1))
    alive = weakref.ref(other)
    del other, turn
    eventually(lambda: gc.collect() >= 0 and alive() is None)  # a thread may be about to let go of it
    assert is_free(shared_engine)


def test_a_question_without_an_answer_is_not_taken_for_the_next(inline: Engine, utterance: Utterance) -> None:
    """The KV cache holds the first one, at the place and by the items of the second."""
    with inline.session(**LIMITS) as one, inline.session(**LIMITS) as other:

        def interrupt(*_: object) -> int:
            one.cancel()
            raise KeyError  # before the first text was chosen

        plain(one, utterance(1), steer=interrupt)
        other.stream(utterance(1), sample_rate=16_000).close()
        assert shown(plain(one, utterance(2))) == shown(plain(other, utterance(2)))
        assert remembered(one)[1:3] == remembered(other)[1:3]
