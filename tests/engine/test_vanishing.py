"""Consumers that go away, in every way: what their turn held comes back, and no other notices."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_engine import Chunk, Engine
from omni2_engine.sampling import Stream
from omni2_engine.sessions.session import Session

from ..waiting import SOON, Moment, Moments, eventually, sleeps

LIMITS = {"max_new_tokens": 14, "max_last_write": 30}
Utterance = Callable[..., np.ndarray]
IsFree = Callable[[Engine], bool]
Ask = Callable[[Engine], np.ndarray]


def closed(chunks: Iterator[Chunk]) -> None:
    chunks.close()  # type: ignore[attr-defined]


def dropped(chunks: Iterator[Chunk]) -> None:
    """Nothing is done to it."""


class Holder:
    """Something that refers to itself, as a consumer may that kept an exception."""

    def __init__(self, *held: object) -> None:
        self.held = (*held, self)


def dropped_in_a_cycle(chunks: Iterator[Chunk]) -> None:
    Holder(chunks)


@pytest.mark.parametrize("leave", [closed, dropped, dropped_in_a_cycle])
@pytest.mark.parametrize("taken", [0, 1, 3])
@pytest.mark.parametrize("own_session", [True, False])
def test_a_consumer_that_goes_away(
    shared_engine: Engine,
    utterance: Utterance,
    ask: Ask,
    is_free: IsFree,
    alone: np.ndarray,
    leave: Callable[[Iterator[Chunk]], None],
    taken: int,
    own_session: bool,
) -> None:
    def consume() -> None:
        asked: Engine | Session = shared_engine.session(**LIMITS) if own_session else shared_engine
        chunks = asked.stream(utterance(1), sample_rate=16_000, **LIMITS)
        for _ in range(taken):
            next(chunks)
        leave(chunks)

    consume()
    if leave is dropped_in_a_cycle:
        gc.collect()
    assert is_free(shared_engine)
    assert np.array_equal(ask(shared_engine), alone)


@pytest.mark.parametrize("own_session", [True, False])
def test_a_task_that_is_cancelled(
    tiny_engine_dir: Path, utterance: Utterance, is_free: IsFree, own_session: bool
) -> None:
    """While the question is read or encoded, while it waits for a chunk, or between two: at runs of graphs."""
    moments = Moments()
    engine = Engine.load(tiny_engine_dir, warm_up=False, backend=moments.backend())

    async def listen(then: Callable[[], None]) -> None:
        asked: Engine | Session = engine.session(**LIMITS) if own_session else engine
        try:
            async for _ in asked.astream(utterance(1), sample_rate=16_000, **LIMITS):
                await asyncio.sleep(0)
        finally:
            then()

    async def leave(moment: Moment | None, within: bool = True) -> bool:
        task = asyncio.create_task(listen(moment.let_through if moment else lambda: None))
        await asyncio.sleep(0)
        if moment:
            await asyncio.get_running_loop().run_in_executor(None, moment.reached.wait)
            if not within:  # the run: it goes on meanwhile
                moment.let_through()
        cancelled = task.cancel()
        if moment:
            moment.let_through()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return cancelled

    assert asyncio.run(leave(None)) and is_free(engine)
    for number in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89):
        assert asyncio.run(leave(moments.at(number, held=True), within=number % 2 == 0))
        assert is_free(engine)


def test_a_consumer_that_leaves_a_turn_waiting(shared_engine: Engine, utterance: Utterance, is_free: IsFree) -> None:
    """It was so slow that its turn had stopped."""
    with shared_engine.session(**LIMITS, unread=0.01) as session:
        chunks = session.stream(utterance(1), sample_rate=16_000)
        next(chunks)
        output, counts = session._state.turn.output, shared_engine.scheduler.counts
        eventually(lambda: output._held and not counts()[2])
        sessions, queued, running = shared_engine.scheduler.counts()
        assert (sessions, running) == (1, 0) and queued > 0
        leaving = threading.Thread(target=chunks.close, daemon=True)  # type: ignore[attr-defined]
        leaving.start()
        leaving.join(SOON)
        assert not leaving.is_alive() and shared_engine.scheduler.counts() == (1, 0, 0)
        assert session.metrics is not None and not session.metrics.audio_seconds > 1.0
        assert list(session.stream(utterance(1), sample_rate=16_000))[-1].final
    assert is_free(shared_engine)


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_garbage_collected_inside_a_step(
    shared_engine: Engine, utterance: Utterance, is_free: IsFree, alone: np.ndarray, whose: str
) -> None:
    """A turn that its consumer dropped in a cycle is found by a thread of the scheduler, which must not wait."""
    dropped, collected, end = threading.Event(), [], shared_engine.config.tokens.speech_eos

    def collecting(model: Stream, generated: list[int], chosen: int) -> int:
        if model is Stream.SPEECH and len(generated) == 25:
            assert dropped.wait(SOON)
            collected.append(gc.collect())
        return chosen if whose == "another's" or chosen != end else 7

    def consume(steer: Callable[[Stream, list[int], int], int] | None) -> None:
        chunks = shared_engine.stream(utterance(2), sample_rate=16_000, steer=steer, **LIMITS)
        next(chunks)
        dropped_in_a_cycle(chunks)

    gc.disable()
    try:
        consume(collecting if whose == "its own" else None)
        dropped.set()
        if whose == "another's":
            turn = shared_engine.stream(utterance(1), sample_rate=16_000, seed=1, steer=collecting, **LIMITS)
            assert np.array_equal(np.concatenate([chunk.pcm for chunk in turn]), alone)
        assert is_free(shared_engine)
        assert len(collected) == 1 and collected[0] > 0
    finally:
        gc.enable()


def test_interrupted_from_the_keyboard(
    shared_engine: Engine, utterance: Utterance, ask: Ask, is_free: IsFree, alone: np.ndarray
) -> None:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread alone")
    writing, interrupted = threading.Event(), threading.Event()

    def on_text(_: str) -> None:
        writing.set()
        assert interrupted.wait(SOON)

    def interrupt() -> None:
        assert writing.wait(SOON)
        sleeps(threading.main_thread())  # the consumer waits for a chunk
        os.kill(os.getpid(), signal.SIGINT)

    def handle(number: int, frame: object) -> None:
        interrupted.set()  # the step that runs comes to its end
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            list(shared_engine.stream(utterance(1), sample_rate=16_000, on_text=on_text, **LIMITS))
    finally:
        signal.signal(signal.SIGINT, before)
    assert is_free(shared_engine)
    assert np.array_equal(ask(shared_engine), alone)


def test_a_turns_memory_is_gone_when_the_turn_is(
    shared_engine: Engine, utterance: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when garbage is collected, which knows nothing of how much its caches take, and even if the user keeps
    the answer. The engine keeps the last one's for the next turn, and nothing else does."""
    begin, made = shared_engine.states.begin, []

    def watched(*arguments: Any) -> Any:
        states = yield from begin(*arguments)
        made.extend(weakref.ref(part) for part in (states, states.decoder.flow))
        return states

    def fail(_: str) -> None:
        raise KeyError

    monkeypatch.setattr(shared_engine.states, "begin", watched)
    gc.collect()
    gc.disable()
    try:
        with shared_engine.session(**LIMITS) as session:
            list(session.stream(utterance(1), sample_rate=16_000))
            next(session.stream(utterance(2), sample_rate=16_000))
            with session.stream(utterance(2), sample_rate=16_000) as stopped:
                next(stopped)
            with pytest.raises(KeyError):
                list(session.stream(utterance(3), sample_rate=16_000, on_text=fail))
        kept, shared_engine.states._idle = shared_engine.states._idle, None
        assert kept is not None and made[-2]() is kept and made[-1]() is kept.decoder.flow
        assert len(made) == 8 and all(flow() is kept.decoder.flow for flow in made[1::2])
        del kept
        eventually(lambda: not any(part() for part in made))  # the thread that reported the error may still have it
        assert not list(stopped)  # kept up to here
    finally:
        gc.enable()


@pytest.mark.parametrize("session_open", [False, True])
def test_an_engine_that_is_dropped_ends_its_threads(
    tiny_engine_dir: Path, utterance: Utterance, session_open: bool
) -> None:
    threads = set(os.listdir("/proc/self/task"))
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False)
    session = engine.session(**LIMITS)
    list(session.stream(utterance(1), sample_rate=16_000))
    if not session_open:
        session.close()
    assert set(os.listdir("/proc/self/task")) - threads
    alive = weakref.ref(engine)
    gc.disable()
    try:
        del engine, session
        eventually(lambda: alive() is None)  # a thread of the scheduler may be about to let go of the last step
    finally:
        gc.enable()
    eventually(lambda: not set(os.listdir("/proc/self/task")) - threads)
