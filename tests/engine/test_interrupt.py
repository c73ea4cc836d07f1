"""`Session.interrupt`: the person speaks again, at any moment; the next prompt holds the rounds that were heard."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni2_engine import Chunk, Engine, Session
from omni2_engine.errors import SettingError
from omni2_engine.sampling import Stream

from ..waiting import SOON, Moments, eventually
from .test_waiting import with_room_for_one

LIMITS = {"max_new_tokens": 8, "max_last_write": 14, "seed": 3}
Utterance = Callable[..., np.ndarray]
IsFree = Callable[[Engine], bool]
TEXT = [300 + number for number in range(8)]  # which does not end by itself


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


def ask(session: Session, audio: np.ndarray, **options: Any) -> Any:
    return session.stream(audio, sample_rate=16_000, forced=script(session), **options)


def script(session: Session) -> dict[Stream, list[int]]:
    """Every write is as long as it may be, a unit a token."""
    pipeline = session._state.runtime.pipeline
    table = pipeline.unit_table.table
    unit = np.flatnonzero((table >= 0) & (table < pipeline.config.flow_encoder.units))[0]
    return {Stream.TEXT: TEXT, Stream.SPEECH: [int(unit)] * 60}


def heard_tokens(engine: Engine, seconds: float) -> int:
    """Tokens of the rounds whose speech had begun by then: W units each, of R tokens."""
    config = engine.config
    rounds = math.ceil(seconds * config.flow_encoder.unit_rate / config.write)
    return min(rounds * config.read, int(LIMITS["max_new_tokens"]))


def check_next_prompt(engine: Engine, session: Session, audio: np.ndarray, tokens: int) -> None:
    """The next prompt holds this number of tokens of the answer, and the KV cache keeps what it has of them."""
    history = session._state.history
    reply, fed = list(history.exchanges[-1].reply), list(history.fed)
    assert reply == TEXT[:tokens]
    record = session.history[-1]
    assert record.answer == engine.pipeline.tokenizer.decode(reply)
    list(ask(session, audio, max_new_tokens=1, max_last_write=1))
    layout = engine.prompts.lay_out(history.exchanges, None)
    assert history.exchanges[-2].reply == reply and history.fed == layout.items
    assert session.metrics is not None and session.metrics.reused_positions == layout.common_prefix(fed)
    assert session.metrics.reused_positions >= len(history.exchanges[-2].items()) + max(tokens - 1, 0)


def test_at_every_chunk_boundary_and_between(inline: Engine, utterance: Utterance) -> None:
    """The next answer is that of a conversation whose answer was made to its end, and cut there, to the bit."""
    with inline.session(**LIMITS) as session:
        whole: list[Chunk] = list(ask(session, utterance(1)))
    assert len(whole) >= 3
    for number, chunk in enumerate(whole):
        for heard in (chunk.start, chunk.start + chunk.duration / 2, chunk.end):
            with inline.session(**LIMITS) as session, inline.session(**LIMITS) as other:
                answer = ask(session, utterance(1))
                taken = [next(answer) for _ in range(number + 1)]
                session.interrupt(heard)
                rest = list(answer)
                if chunk.final:
                    assert rest == []
                else:
                    (end,) = rest
                    assert (len(end.pcm), end.final, end.finish_reason) == (0, True, "cancelled")
                    assert session.history[-1].finish_reason == "cancelled"
                text = "".join(piece.text for piece in [*taken, *rest])
                assert "".join(piece.text for piece in whole).startswith(text)
                list(ask(other, utterance(1)))
                other.truncate(1000 * heard)
                answers = [list(each.stream(utterance(2), sample_rate=16_000)) for each in (session, other)]
                for chunks in zip(*answers, strict=True):
                    assert chunks[0].pcm.tobytes() == chunks[1].pcm.tobytes() and chunks[0].text == chunks[1].text
                kept = heard_tokens(inline, heard)
                assert session._state.history.exchanges[0].reply == TEXT[:kept]
            with inline.session(**LIMITS) as session:
                answer = ask(session, utterance(1))
                for _ in range(number + 1):
                    next(answer)
                session.interrupt(heard)
                check_next_prompt(inline, session, utterance(2), heard_tokens(inline, heard))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.integers(0, 60), share=st.floats(0, 1))
def test_between_any_two_steps(inline: Engine, utterance: Utterance, steps: int, share: float) -> None:
    with inline.session(**LIMITS) as session:
        answer = ask(session, utterance(1))
        for _ in range(steps):
            session._state.queue.run_step()
        made = session._state.turn.recorder.metrics.audio_seconds  # type: ignore[union-attr]
        written = session._state.turn.recorder.metrics.text_tokens  # type: ignore[union-attr]
        session.interrupt(share * made)
        assert list(answer)[-1].finish_reason == "cancelled"
        if written:
            check_next_prompt(inline, session, utterance(2), heard_tokens(inline, share * made))
        else:
            assert session._state.history.exchanges == []


def test_while_a_graph_runs(counted: Engine, utterance: Utterance, is_free: IsFree, moments: Moments) -> None:
    """Every other run of a graph is held once, and the turn interrupted from another thread: the step that is held
    finishes, none of its stage follows it, and the interrupting thread may ask the next question at once."""
    with counted.session(**LIMITS) as session:
        list(ask(session, utterance(1)))
        before = moments.runs.total()
        list(ask(session, utterance(1)))
        runs = moments.runs.total() - before
    for number in range(0, runs, 2):
        with counted.session(**LIMITS) as session, ThreadPoolExecutor(2) as pool:
            moment = moments.at(number, held=True)
            answer, taken = ask(session, utterance(1)), []
            consumer = pool.submit(lambda answer=answer, taken=taken: taken.extend(answer))
            assert moment.reached.wait(SOON)
            heard = sum(chunk.duration for chunk in list(taken)) * (1.0, 0.4)[number // 2 % 2]
            interrupting = pool.submit(session.interrupt, heard)
            turn = session._state.turn
            eventually(lambda turn=turn: turn is None or turn.ended)
            begun = moments.runs.total()
            moment.let_through()
            interrupting.result(SOON)
            assert moments.runs.total() - begun <= 12  # runs of one step, and of one of another stage that had begun
            reply = session._state.history.exchanges[-1].reply if session._state.history.exchanges else []
            assert reply == TEXT[: heard_tokens(counted, heard)]
            assert list(ask(session, utterance(2)))[-1].finish_reason == "limit"
            consumer.result(SOON)
            assert taken[-1].final and taken[-1].finish_reason in ("cancelled", "limit")
    assert is_free(counted)


def test_inside_a_callback(counted: Engine, utterance: Utterance) -> None:
    with counted.session(**LIMITS) as session:
        (end,) = ask(session, utterance(1), on_text=lambda _: session.interrupt(0.0))
        assert end.finish_reason == "cancelled" and end.text
        check_next_prompt(counted, session, utterance(2), 0)


def test_while_it_waits_for_memory(tiny_engine_dir: Path, utterance: Utterance, is_free: IsFree) -> None:
    engine = with_room_for_one(tiny_engine_dir, conversations=2)
    with engine, engine.session() as first, engine.session() as second, ThreadPoolExecutor(1) as pool:
        running = first.stream(utterance(1), sample_rate=16_000)
        next(running)
        asked = pool.submit(lambda: list(second.stream(utterance(1), sample_rate=16_000)))
        eventually(lambda: second._state.turn is not None and second._state.turn.waits_for is not None)
        second.interrupt(1.0)
        assert [chunk.finish_reason for chunk in asked.result(SOON)] == ["cancelled"]
        running.close()
        assert list(second.stream(utterance(1), sample_rate=16_000))[-1].final
    assert is_free(engine)


def test_from_a_thread_while_a_coroutine_listens(counted: Engine, utterance: Utterance, is_free: IsFree) -> None:
    with counted.session(**LIMITS, unread=0.01) as session:

        async def listen() -> list[Chunk]:
            chunks = []
            async for chunk in session.astream(utterance(1), sample_rate=16_000, forced=script(session)):
                chunks.append(chunk)
                if chunk.index == 1:
                    thread = threading.Thread(target=session.interrupt, args=(chunk.start,), daemon=True)
                    thread.start()
                    await asyncio.get_running_loop().run_in_executor(None, thread.join)
            return chunks

        chunks = asyncio.run(listen())
        assert [chunk.final for chunk in chunks] == [False, False, True] and not len(chunks[-1].pcm)
        check_next_prompt(counted, session, utterance(2), heard_tokens(counted, chunks[1].start))
    assert is_free(counted)


def test_after_its_end_the_last_answer_is_cut(inline: Engine, utterance: Utterance) -> None:
    with inline.session(**LIMITS) as session:
        session.interrupt(0)  # there is nothing to forget
        chunks = list(ask(session, utterance(1)))
        session.interrupt(chunks[1].end)
        session.interrupt(chunks[1].end + 1)  # what was forgotten does not come back
        assert session.history[-1].truncated and session.history[-1].finish_reason == "limit"
        for time in (-1.0, float("nan"), None):
            with pytest.raises(SettingError, match="heard"):
                session.interrupt(time)  # type: ignore[arg-type]
        check_next_prompt(inline, session, utterance(2), heard_tokens(inline, chunks[1].end))
    with pytest.raises(SettingError, match="closed"):
        session.interrupt(0)


def test_nothing_heard_of_an_answer_that_had_said_nothing(inline: Engine, utterance: Utterance) -> None:
    """It is the answer before that was heard, and stays."""
    with inline.session(**LIMITS) as session:
        list(ask(session, utterance(1)))
        answer = ask(session, utterance(2))
        session.interrupt(0)
        assert [chunk.finish_reason for chunk in answer] == ["cancelled"]
        assert [exchange.reply for exchange in session._state.history.exchanges] == [TEXT]
