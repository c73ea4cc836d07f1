"""Turns that do not end by themselves: cancelled, failed and closed ones leave nothing behind, and harm no other."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_engine import Chunk, Engine
from omni2_engine import session as session_module
from omni2_engine.errors import AudioError, SettingError
from omni2_engine.sampling import Stream
from omni2_engine.schedule.calls import StageCalls, Task
from omni2_engine.stages.encoder import SpeechEncoder
from omni2_engine.turn.plan import STAGE_OF

LIMITS = {"max_new_tokens": 14, "max_last_write": 30}
SOON = 30.0
Utterance = Callable[..., np.ndarray]
IsFree = Callable[[Engine], bool]
Ask = Callable[[Engine], np.ndarray]


def pcm(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *(chunk.pcm for chunk in chunks)])


class Consumer(threading.Thread):
    """Takes what a turn gives until it ends, on a thread of its own."""

    def __init__(self, begin: Callable[[], Iterator[Chunk]]) -> None:
        super().__init__(daemon=True)
        self._begin = begin
        self.chunks: list[Chunk] = []
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for chunk in self._begin():
                self.chunks.append(chunk)
        except BaseException as error:
            self.error = error

    def ended(self) -> bool:
        self.join(SOON)
        return not self.is_alive()


class Gate:
    """A place where a step of the engine's stops until it is let through."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, *_: object) -> None:
        self.reached.set()
        assert self.open.wait(SOON)


class Steps:
    """Every step that begins, by stage; and those that run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.begun: list[tuple[str, int]] = []  # stage, session
        self.running: set[tuple[str, int]] = set()
        real = StageCalls.call

        def run(calls: StageCalls, tasks: list[Task]) -> Any:
            here = {(STAGE_OF[type(task.step)].name, id(task.run.queue)) for task in tasks}
            self.running |= here
            self.begun.extend(here)
            try:
                return real(calls, tasks)
            finally:
                self.running -= here

        patch.setattr(StageCalls, "call", run)


# -- cancelling --------------------------------------------------------------------------------------------------------


def test_cancelling_at_200_moments(
    tiny_engine_dir: Path, utterance: Utterance, ask: Ask, is_free: IsFree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another thread, while another conversation goes on, which must not notice.

    When `cancel` returns while a step of the session is inside a stage, that stage begins none of it any more; at
    another stage one may just have been begun and not yet been seen here.
    """
    steps, randomness = Steps(monkeypatch), random.Random(1)
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False, sessions=2)
    expected = ask(engine)
    began = time.monotonic()
    ask(engine)
    duration, threads = time.monotonic() - began, threading.active_count()
    over, others, asked = threading.Event(), [], threading.Event()

    def read(audio: Any, *arguments: Any, real: Any = session_module.read_audio) -> Any:
        if audio is question:
            asked.set()
        return real(audio, *arguments)

    monkeypatch.setattr(session_module, "read_audio", read)
    question = utterance(2)

    def converse() -> None:
        while not over.is_set():
            others.append(np.array_equal(ask(engine), expected))

    beside = threading.Thread(target=converse, daemon=True)
    beside.start()
    reasons = []
    for number in range(200):
        with engine.session(**LIMITS, seed=number) as session:
            asked.clear()
            consumer = Consumer(lambda session=session: session.stream(question, sample_rate=16_000))
            assert asked.wait(SOON)
            time.sleep(randomness.uniform(0, 1.5 * duration))
            session.cancel()
            begun, inside = len(steps.begun), set(steps.running)
            assert consumer.ended() and consumer.error is None
            later = [step for step in steps.begun[begun:] if step[1] == id(session._queue)]
            assert len(later) == len(set(later)) and not inside & set(later)
            assert session.metrics is not None
            reasons.append(session.metrics.finish_reason)
            assert reasons[-1] == "cancelled" or (consumer.chunks and consumer.chunks[-1].final)
    over.set()
    beside.join(SOON)
    assert all(others) and len(others) > 10
    assert reasons.count("cancelled") > 60
    assert is_free(engine) and threading.active_count() <= threads
    assert np.array_equal(ask(engine), expected)


def test_cancelled_while_the_question_is_encoded(
    shared_engine: Engine, utterance: Utterance, is_free: IsFree, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, encode, steps = Gate(), SpeechEncoder.__call__, []

    def gated(*arguments: Any) -> Any:
        gate()
        return encode(*arguments)

    monkeypatch.setattr(SpeechEncoder, "__call__", gated)
    monkeypatch.setattr(shared_engine.pipeline.llm, "extend", lambda *_: steps.append("prefill"))
    first, second = (shared_engine.session(**LIMITS) for _ in range(2))
    listening = Consumer(lambda: first.stream(utterance(1), sample_rate=16_000))
    assert gate.reached.wait(SOON)
    queued = Consumer(lambda: second.stream(utterance(2), sample_rate=16_000))
    while shared_engine.scheduler.counts()[1] == 0:
        time.sleep(0.001)
    second.cancel()  # it has not begun, and need not wait for the other
    assert queued.ended() and listening.is_alive()
    first.cancel()
    gate.open.set()
    assert listening.ended()
    for session, consumer in ((first, listening), (second, queued)):
        assert consumer.chunks == [] and consumer.error is None
        assert session.metrics is not None and session.metrics.finish_reason == "cancelled"
    assert steps == []
    monkeypatch.undo()
    for session in (first, second):
        assert list(session.stream(utterance(1), sample_rate=16_000))[-1].final
        session.close()
    assert is_free(shared_engine)


def test_cancelled_while_the_question_is_read(
    shared_engine: Engine, utterance: Utterance, is_free: IsFree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the turn was asked for and before it has anything in the scheduler's hands."""
    read, encoded = session_module.read_audio, []

    def cancelled(*arguments: Any) -> Any:
        session.cancel()
        return read(*arguments)

    monkeypatch.setattr(session_module, "read_audio", cancelled)
    monkeypatch.setattr(SpeechEncoder, "__call__", lambda *_: encoded.append(True))
    with shared_engine.session(**LIMITS) as session:
        assert list(session.stream(utterance(1), sample_rate=16_000)) == [] == encoded
        assert session.metrics is not None and session.metrics.finish_reason == "cancelled"
        monkeypatch.undo()
        assert list(session.stream(utterance(1), sample_rate=16_000))[-1].final
    assert is_free(shared_engine)


def test_a_callback_may_cancel(shared_engine: Engine, utterance: Utterance, is_free: IsFree) -> None:
    with shared_engine.session(**LIMITS) as session:
        pieces: list[str] = []

        def stop(piece: str) -> None:
            pieces.append(piece)
            session.cancel()

        assert list(session.stream(utterance(1), sample_rate=16_000, on_text=stop)) == []
        assert len(pieces) == 1
        assert session.metrics is not None and session.metrics.finish_reason == "cancelled"
        assert list(session.stream(utterance(1), sample_rate=16_000))[-1].final
    assert is_free(shared_engine)


# -- failing -----------------------------------------------------------------------------------------------------------


class OutOfOrder(Exception):
    """What a callback raises."""


def on_text(error: BaseException) -> dict[str, Any]:
    def tell(piece: str) -> None:
        raise error

    return {"on_text": tell}


def steer(stream: Stream, count: int) -> Callable[[BaseException], dict[str, Any]]:
    def options(error: BaseException) -> dict[str, Any]:
        def pick(model: Stream, generated: list[int], chosen: int) -> int:
            if model is stream and len(generated) == count:
                raise error
            return chosen

        return {"steer": pick}

    return options


@pytest.mark.parametrize("raising", [on_text, steer(Stream.TEXT, 0), steer(Stream.TEXT, 7), steer(Stream.SPEECH, 25)])
def test_a_callback_that_raises_ends_its_turn_and_no_other(
    shared_engine: Engine,
    utterance: Utterance,
    ask: Ask,
    is_free: IsFree,
    alone: np.ndarray,
    raising: Callable[[BaseException], dict[str, Any]],
) -> None:
    error, others = OutOfOrder("out of order"), []
    beside = threading.Thread(target=lambda: others.append(ask(shared_engine)), daemon=True)
    with shared_engine.session(**LIMITS, seed=1) as session:
        beside.start()
        with pytest.raises(OutOfOrder) as raised:
            list(session.stream(utterance(1), sample_rate=16_000, **raising(error)))
        assert raised.value is error
        beside.join(SOON)
        assert np.array_equal(others[0], alone)
        assert list(session.stream(utterance(2), sample_rate=16_000))[-1].final
    assert is_free(shared_engine)


def test_questions_that_cannot_be_used_leave_no_session(
    shared_engine: Engine, utterance: Utterance, is_free: IsFree
) -> None:
    kept = []  # as a log keeps errors, and they all that was at hand
    for question, error in (
        ({"audio": np.full(1000, np.nan, np.float32)}, AudioError),
        ({"text": "?\ud800"}, SettingError),
    ):
        with pytest.raises(error) as raised:
            shared_engine.stream(**question, sample_rate=16_000)
        kept.append(raised.value)
    assert is_free(shared_engine)


# -- closing -----------------------------------------------------------------------------------------------------------


def test_closed_during_a_turn_by_another_thread(
    shared_engine: Engine, utterance: Utterance, is_free: IsFree, alone: np.ndarray
) -> None:
    randomness, outcomes = random.Random(1), []
    for _ in range(40):
        session = shared_engine.session(**LIMITS, seed=1)
        consumer = Consumer(lambda session=session: session.stream(utterance(1), sample_rate=16_000))
        time.sleep(randomness.uniform(0, 0.3))
        closers = [threading.Thread(target=session.close, daemon=True) for _ in range(3)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(SOON)
        assert consumer.ended() and is_free(shared_engine)
        heard = pcm(consumer.chunks)
        assert np.array_equal(heard, alone[: len(heard)])
        if consumer.error is not None:
            assert isinstance(consumer.error, SettingError) and "closed" in str(consumer.error)
        outcomes.append(consumer.error is None)
        with pytest.raises(SettingError, match="closed"):
            session.stream(text="Are you there?")
    assert outcomes.count(False) > 5


def test_a_callback_may_close(shared_engine: Engine, utterance: Utterance, is_free: IsFree) -> None:
    session = shared_engine.session(**LIMITS)
    with pytest.raises(SettingError, match="closed during the turn"):
        list(session.stream(utterance(1), sample_rate=16_000, on_text=lambda _: session.close()))
    assert is_free(shared_engine)


def test_closed_with_the_iterator_still_in_hand(shared_engine: Engine, utterance: Utterance, is_free: IsFree) -> None:
    with shared_engine.session(**LIMITS) as session:
        chunks = session.stream(utterance(1), sample_rate=16_000)
        next(chunks)
    with pytest.raises(SettingError, match="closed during the turn"):
        list(chunks)
    assert is_free(shared_engine)
