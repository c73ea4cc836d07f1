"""Turns that do not end by themselves: cancelled, failed and closed ones leave nothing behind, and harm no other."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_engine import Chunk, Engine, Session
from omni2_engine.errors import AudioError, SettingError
from omni2_engine.sampling import Stream
from omni2_engine.sessions import question as question_module
from omni2_engine.stages.encoder import SpeechEncoder

from ..waiting import SOON, Moments, eventually

LIMITS = {"max_new_tokens": 14, "max_last_write": 30}
Utterance = Callable[..., np.ndarray]
IsFree = Callable[[Engine], bool]
Ask = Callable[[Engine], np.ndarray]


def pcm(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *(chunk.pcm for chunk in chunks)])


def nothing_but_the_end(chunks: list[Chunk], text: str = "") -> bool:
    """Whether a turn was cancelled before any sound, and says so."""
    (chunk,) = chunks
    return not len(chunk.pcm) and (chunk.final, chunk.finish_reason, chunk.text) == (True, "cancelled", text)


class Consumer(threading.Thread):
    """Takes what a turn gives until it ends, on a thread of its own; calls `then` in the end."""

    def __init__(self, begin: Callable[[], Iterator[Chunk]], then: Callable[[], None] = lambda: None) -> None:
        super().__init__(daemon=True)
        self._begin, self._then = begin, then
        self.chunks: list[Chunk] = []
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for chunk in self._begin():
                self.chunks.append(chunk)
        except BaseException as error:
            self.error = error
        self._then()

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


# -- cancelling --------------------------------------------------------------------------------------------------------

SHORT = {"max_new_tokens": 7, "max_last_write": 12}  # a turn of some 60 runs of graphs
ONCE_A_STEP = ("llm", "fusion", "speech_lm", "flow_encoder", "vocoder")  # graphs that a step runs once


@pytest.fixture
def moments() -> Moments:
    return Moments()


@pytest.fixture
def counted(tiny_engine_dir: Path, moments: Moments) -> Engine:
    """The tiny engine for two conversations, whose runs of graphs are counted."""
    return Engine.load(tiny_engine_dir, warm_up=False, sessions=2, backend=moments.backend())


def short(engine: Engine, utterance: Utterance) -> np.ndarray:
    return pcm(list(engine.stream(utterance(1), sample_rate=16_000, seed=1, **SHORT)))


def runs_of_a_turn(engine: Engine, utterance: Utterance, moments: Moments) -> int:
    short(engine, utterance)  # the first turn prefills what all have in common
    before = moments.runs.total()
    assert len(short(engine, utterance))
    return moments.runs.total() - before


def test_cancelling_at_every_moment_of_a_turn(
    counted: Engine, utterance: Utterance, is_free: IsFree, moments: Moments
) -> None:
    """Every run of a graph is held once, and the turn cancelled from another thread meanwhile.

    The step that is held finishes and none of its stage follows it; of another stage one may have begun.
    """
    runs, expected = runs_of_a_turn(counted, utterance, moments), short(counted, utterance)
    threads, held = threading.active_count(), Counter[str]()
    for number in range(runs):
        with counted.session(**SHORT, seed=1) as session:
            moment = moments.at(number, held=True)
            begin = partial(session.stream, utterance(1), sample_rate=16_000)
            consumer = Consumer(begin, moment.let_through)
            assert moment.reached.wait(SOON)
            session.cancel()
            begun = moments.runs.copy()
            moment.let_through()
            assert consumer.ended() and consumer.error is None
            later, held[moment.graph] = moments.runs - begun, held[moment.graph] + 1
            assert all(later[graph] <= (graph != moment.graph) for graph in ONCE_A_STEP), (moment.graph, later)
            heard = pcm(consumer.chunks)
            assert np.array_equal(heard, expected[: len(heard)])
            assert session.metrics is not None
            last = number == runs - 1  # the turn may have been whole before it was cancelled
            assert session.metrics.finish_reason == "cancelled" or (last and consumer.chunks[-1].final)
        assert is_free(counted)
    assert {"encoder", "flow_step", *ONCE_A_STEP} <= set(held) and threading.active_count() <= threads
    assert np.array_equal(short(counted, utterance), expected)


def test_cancelling_while_another_conversation_goes_on(
    counted: Engine, utterance: Utterance, is_free: IsFree, moments: Moments
) -> None:
    """At moments of either, two of three held; the other must not notice."""
    runs, expected = runs_of_a_turn(counted, utterance, moments), short(counted, utterance)
    threads = threading.active_count()
    over, others, reasons = threading.Event(), [], Counter[str]()

    def converse() -> None:
        while not over.is_set():
            others.append(np.array_equal(short(counted, utterance), expected))

    beside = threading.Thread(target=converse, daemon=True)
    beside.start()
    for number in range(60):
        chosen: list[Stream] = []

        def note(stream: Stream, generated: list[int], id: int, chosen: list[Stream] = chosen) -> int:
            chosen.append(stream)
            return id

        with counted.session(**SHORT, seed=number) as session:
            moment, asked = moments.at(number * 2 * runs // 60, held=number % 3 > 0), threading.Event()

            def begin(session: Session = session, note: Any = note, asked: threading.Event = asked) -> Iterator[Chunk]:
                answer = session.stream(utterance(2), sample_rate=16_000, steer=note)
                asked.set()
                return answer

            consumer = Consumer(begin, moment.let_through)
            assert asked.wait(SOON) and moment.reached.wait(SOON)  # the moment may be the other conversation's
            session.cancel()
            begun = len(chosen)
            moment.let_through()
            assert consumer.ended() and consumer.error is None
            later = Counter(chosen[begun:])
            assert max(later.values(), default=0) <= 1  # of the step that had begun
            assert session.metrics is not None
            reason = session.metrics.finish_reason
            reasons[reason] += 1
            assert [chunk.finish_reason for chunk in consumer.chunks if chunk.final] == [reason]
            assert consumer.chunks[-1].final
            (record,) = session.history
            assert (record.typed, record.finish_reason) == (None, reason)
            assert record.answer == "".join(chunk.text for chunk in consumer.chunks)
    over.set()
    beside.join(SOON)
    assert others and all(others)
    assert reasons["cancelled"] >= 20
    assert is_free(counted) and threading.active_count() <= threads
    assert np.array_equal(short(counted, utterance), expected)


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
    eventually(lambda: shared_engine.scheduler.counts()[1] > 0)
    second.cancel()  # it has not begun, and need not wait for the other
    assert queued.ended() and listening.is_alive()
    first.cancel()
    gate.open.set()
    assert listening.ended()
    for session, consumer in ((first, listening), (second, queued)):
        assert nothing_but_the_end(consumer.chunks) and consumer.error is None
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
    read, encoded = question_module.read_audio, []

    def cancelled(*arguments: Any) -> Any:
        session.cancel()
        return read(*arguments)

    monkeypatch.setattr(question_module, "read_audio", cancelled)
    monkeypatch.setattr(SpeechEncoder, "__call__", lambda *_: encoded.append(True))
    with shared_engine.session(**LIMITS) as session:
        assert nothing_but_the_end(list(session.stream(utterance(1), sample_rate=16_000))) and encoded == []
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

        chunks = list(session.stream(utterance(1), sample_rate=16_000, on_text=stop))
        assert nothing_but_the_end(chunks, "".join(pieces)) and len(pieces) == 1
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
    counted: Engine, utterance: Utterance, is_free: IsFree, moments: Moments
) -> None:
    runs, expected = runs_of_a_turn(counted, utterance, moments), short(counted, utterance)
    outcomes = []
    for number in range(0, runs, 2):
        session = counted.session(**SHORT, seed=1)
        moment = moments.at(number, held=number % 6 < 4)
        consumer = Consumer(partial(session.stream, utterance(1), sample_rate=16_000), moment.let_through)
        assert moment.reached.wait(SOON)
        closers = [threading.Thread(target=session.close, daemon=True) for _ in range(3)]
        for closer in closers:
            closer.start()
        if number % 6 < 4:
            assert eventually(lambda session=session: session._state.closed)
        moment.let_through()
        for closer in closers:
            closer.join(SOON)
        assert consumer.ended() and is_free(counted)
        heard = pcm(consumer.chunks)
        assert np.array_equal(heard, expected[: len(heard)])
        if consumer.error is not None:
            assert isinstance(consumer.error, SettingError) and "closed" in str(consumer.error)
        outcomes.append(consumer.error is None)
        with pytest.raises(SettingError, match="closed"):
            session.stream(text="Are you there?")
    assert outcomes.count(False) > len(outcomes) // 2


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
