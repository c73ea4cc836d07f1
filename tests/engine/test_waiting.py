"""Many at once: who comes first, who is told to come back, and event loops that go on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni2_engine import Engine
from omni2_engine.errors import BusyError, SettingError
from omni2_engine.sampling import Stream
from omni2_engine.schedule.calls import StageCalls, Task
from omni2_engine.sessions.waiting_turns import WaitingTurns
from omni2_engine.stages.encoder import SpeechEncoder
from omni2_engine.turn.plan import RunVocoder

from ..waiting import SOON, eventually

LIMITS = {"max_new_tokens": 5, "max_last_write": 12}
Utterance = Callable[..., np.ndarray]


def with_room_for_one(engine_dir: Path, conversations: int, **options: Any) -> Engine:
    """An engine whose memory does for this number of conversations and for one turn."""
    probe = Engine.load(engine_dir, threads=1, warm_up=False)
    positions = probe.pipeline.speech_positions(256, 1024)
    turn = probe.states._turn_sizes(positions, positions / probe.config.flow_encoder.unit_rate)[1]
    memory = conversations * probe.states._conversations.slot_nbytes + turn
    probe.close()
    return Engine.load(engine_dir, threads=1, warm_up=False, memory=memory, admission="wait", **options)


@contextmanager
def held_encoder(patch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The encoder waits until the event is set."""
    go, real = threading.Event(), SpeechEncoder.__call__

    def waiting(encoder: SpeechEncoder, log_mel: np.ndarray) -> np.ndarray:
        assert go.wait(SOON)
        return real(encoder, log_mel)

    patch.setattr(SpeechEncoder, "__call__", waiting)
    try:
        yield go
    finally:
        go.set()


def test_200_coroutines_over_memory_for_one_all_finish_in_their_order(
    tiny_engine_dir: Path, utterance: Utterance, is_free: Callable[[Engine], bool]
) -> None:
    """No call blocks the event loop, and the loop's default executor is never used."""
    engine, begun, ticks = with_room_for_one(tiny_engine_dir, 1), [], []
    question = utterance(1, 0.3)

    class Refusing(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("the default executor belongs to the host program")

    async def one(number: int) -> None:
        def note(model: Stream, generated: list[int], chosen: int) -> int:
            if model is Stream.TEXT and not generated:
                begun.append(number)
            return engine.config.tokens.eos[0]

        async for _ in engine.astream(question, sample_rate=16_000, seed=number, steer=note, max_last_write=2):
            pass

    async def tick(work: asyncio.Task[Any]) -> None:
        while not work.done():
            ticks.append(len(begun))
            await asyncio.sleep(0)

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(Refusing())
        work = asyncio.ensure_future(asyncio.gather(*(one(number) for number in range(200))))
        await tick(work)
        await work

    asyncio.run(main())
    assert begun == list(range(200))
    assert set(range(1, 200)) <= set(ticks)  # the loop went on between any two of them
    assert is_free(engine)
    engine.close()


def test_cancelled_coroutines_leave_the_queue(
    tiny_engine_dir: Path, utterance: Utterance, is_free: Callable[[Engine], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, question = with_room_for_one(tiny_engine_dir, 1), utterance(1, 0.3)

    async def one() -> int:
        return len([chunk async for chunk in engine.astream(question, sample_rate=16_000, **LIMITS)])

    async def main() -> list[Any]:
        with held_encoder(monkeypatch) as go:
            tasks = [asyncio.create_task(one()) for _ in range(9)]
            while engine.waiting < len(tasks):
                await asyncio.sleep(0)
            for task in tasks[1:8]:
                task.cancel()
            await asyncio.wait(tasks[1:8])
            assert engine.waiting == 2
            go.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(main())
    assert found[0] == found[8] > 0 and all(isinstance(error, asyncio.CancelledError) for error in found[1:8])
    assert is_free(engine)
    engine.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_turn_that_waits_for_memory_can_be_cancelled(
    tiny_engine_dir: Path, utterance: Utterance, is_free: Callable[[Engine], bool], asynchronous: bool
) -> None:
    """By `Session.cancel`, from another thread: its answer is empty, and the session goes on."""
    engine, question = with_room_for_one(tiny_engine_dir, 2), utterance(1, 0.3)
    with engine.session(unread=0.01) as first, engine.session(**LIMITS) as second:
        running = first.stream(question, sample_rate=16_000)
        next(running)

        def ask() -> list[Any]:
            if not asynchronous:
                return list(second.stream(question, sample_rate=16_000))

            async def collect() -> list[Any]:
                return [chunk async for chunk in second.astream(question, sample_rate=16_000)]

            return asyncio.run(collect())

        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask)
            while second._state.turn is None or second._state.turn.waits_for is None:
                assert not asked.done()
            second.cancel()
            assert [chunk.finish_reason for chunk in asked.result(SOON)] == ["cancelled"]
        assert second.metrics is not None and second.metrics.finish_reason == "cancelled"
        running.close()
        assert list(second.stream(question, sample_rate=16_000))[-1].final
    assert is_free(engine)
    engine.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_turn_keeps_its_place_from_question_to_first_sound(
    tiny_engine_dir: Path, utterance: Utterance, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """Of eight questions at once the first is heard before anything of the others runs, and so on."""
    calls, real = [], StageCalls.call

    def noting(stages: StageCalls, tasks: list[Task]) -> Any:
        calls.append([(task.run.recorder, type(task.step)) for task in tasks])
        return real(stages, tasks)

    monkeypatch.setattr(StageCalls, "call", noting)
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False, sessions=8)
    with engine, held_encoder(monkeypatch) as go:
        if asynchronous:
            order = asyncio.run(_ask_together(engine, utterance, go))
        else:
            answers = [engine.stream(utterance(number), sample_rate=16_000, **LIMITS) for number in range(8)]
            go.set()
            order = [_recorder(answer) for answer in answers]
            for answer in answers:
                list(answer)
    heard = []  # turns whose first sound is out, in that order
    for call in calls:
        for recorder, step in call:
            if recorder not in heard:
                assert recorder is order[len(heard)], f"a turn that came later ran {step.__name__}"
                if step is RunVocoder:
                    heard.append(recorder)
    assert heard == order


async def _ask_together(engine: Engine, utterance: Utterance, go: threading.Event) -> list[Any]:
    sessions = [engine.session(**LIMITS) for _ in range(8)]

    async def one(number: int) -> None:
        async for _ in sessions[number].astream(utterance(number), sample_rate=16_000):
            pass

    async def submitted(number: int) -> None:
        while (turn := sessions[number]._state.turn) is None or turn.output is None:
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(one(0))]
    await submitted(0)  # it has the encoder; another whose audio is read sooner would take it while it is free
    tasks += [asyncio.create_task(one(number)) for number in range(1, 8)]
    for number in range(1, 8):
        await submitted(number)
    order = [session._state.turn.recorder for session in sessions if session._state.turn is not None]
    go.set()
    await asyncio.gather(*tasks)
    for session in sessions:
        session.close()
    return order


def _recorder(answer: Any) -> Any:
    return answer._end.args[0].recorder


def test_a_queue_has_an_end(tiny_engine_dir: Path, utterance: Utterance, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine.load(tiny_engine_dir, threads=1, warm_up=False, max_waiting=3)
    list(engine.stream(utterance(1), sample_rate=16_000, **LIMITS))
    assert engine.waiting == 0 and engine.expected_wait > 0
    with held_encoder(monkeypatch) as go:
        answers = [engine.stream(utterance(number), sample_rate=16_000, **LIMITS) for number in range(3)]
        assert engine.waiting == 3
        session = engine.session(**LIMITS)
        for ask in (lambda: engine.stream(utterance(4), sample_rate=16_000), lambda: session.stream(text="hello")):
            with pytest.raises(BusyError, match="max_waiting") as refused:
                ask()
            assert refused.value.retry_after == pytest.approx(engine.expected_wait) and "again in" in str(refused.value)
        answers.pop().close()
        assert engine.waiting == 2
        answers.append(session.stream(text="hello"))  # the place is free, and the session unharmed
        go.set()
        assert all(list(answer)[-1].final for answer in answers)
    assert engine.waiting == 0
    engine.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_deadline_ends_a_turn_that_comes_too_late(
    shared_engine: Engine,
    utterance: Utterance,
    is_free: Callable[[Engine], bool],
    monkeypatch: pytest.MonkeyPatch,
    asynchronous: bool,
) -> None:
    def ask() -> None:
        if not asynchronous:
            list(shared_engine.stream(utterance(1), sample_rate=16_000, deadline=0.01, **LIMITS))
            return

        async def collect() -> None:
            async for _ in shared_engine.astream(utterance(1), sample_rate=16_000, deadline=0.01, **LIMITS):
                pass

        asyncio.run(collect())

    entered, enter = threading.Event(), WaitingTurns.enter

    def entering(waiting: WaitingTurns) -> Any:
        ticket = enter(waiting)
        entered.set()
        return ticket

    monkeypatch.setattr(WaitingTurns, "enter", entering)
    with held_encoder(monkeypatch) as go, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        assert entered.wait(SOON)
        eventually(lambda: not shared_engine.waiting)  # its deadline has passed
        go.set()
        with pytest.raises(BusyError, match="deadline"):
            asked.result(SOON)
    assert is_free(shared_engine)
    assert list(shared_engine.stream(utterance(1), sample_rate=16_000, deadline=1000.0, **LIMITS))[-1].final


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_time_out_of_the_users_own_is_no_deadline(shared_engine: Engine, asynchronous: bool) -> None:
    """What a callback raises comes out as it is."""

    def give_up(_: str) -> None:
        raise TimeoutError("the user's own")

    async def collect() -> None:
        async for _ in shared_engine.astream(text="hello", on_text=give_up, **LIMITS):
            pass

    with pytest.raises(TimeoutError, match="the user's own"):
        if asynchronous:
            asyncio.run(collect())
        else:
            list(shared_engine.stream(text="hello", on_text=give_up, **LIMITS))


def test_a_deadline_ends_the_wait_for_memory(
    tiny_engine_dir: Path, utterance: Utterance, is_free: Callable[[Engine], bool]
) -> None:
    engine = with_room_for_one(tiny_engine_dir, 2)
    with engine.session(unread=0.01) as first, engine.session(**LIMITS) as second:
        running = first.stream(utterance(1), sample_rate=16_000)
        next(running)
        with pytest.raises(BusyError, match="deadline"):
            second.stream(utterance(2), sample_rate=16_000, deadline=0.01)
        assert list(running)[-1].final
        assert list(second.stream(utterance(2), sample_rate=16_000))[-1].final
    assert is_free(engine)
    engine.close()


@given(took=st.lists(st.floats(0.01, 10), min_size=1, max_size=20), limit=st.integers(1, 5))
def test_the_expected_wait_follows_what_turns_take(took: list[float], limit: int) -> None:
    """Turns that are served one after another: the time that one waits for others is not counted as its own."""
    now = 0.0
    waiting = WaitingTurns(limit, lambda: now)
    assert waiting.expected == 0
    first = [waiting.enter() for _ in range(limit)]
    with pytest.raises(BusyError):
        waiting.enter()
    for ticket in first:
        waiting.leave(ticket, sounded=False)
    assert len(waiting) == 0 and waiting.expected == 0
    for seconds in took:
        tickets = [waiting.enter() for _ in range(limit)]
        for ticket in tickets:
            now += seconds
            waiting.leave(ticket, sounded=True)
            waiting.leave(ticket, sounded=True)
    assert 0.99 * min(took) <= waiting.expected <= 1.01 * max(took)
    waiting.enter()
    if limit > 1:
        assert 1.98 * min(took) <= waiting.expected <= 2.02 * max(took)


def test_the_longest_wait_is_the_oldest_turns() -> None:
    """What a replica's health is judged by."""
    now = 0.0
    waiting = WaitingTurns(None, lambda: now)
    assert waiting.longest == 0
    first = waiting.enter()
    now = 3.0
    second = waiting.enter()
    now = 5.0
    assert waiting.longest == 5
    waiting.leave(first, sounded=True)
    assert waiting.longest == 2
    waiting.leave(second, sounded=False)
    assert waiting.longest == 0


def test_an_engine_that_is_closed(tiny_engine_dir: Path, utterance: Utterance) -> None:
    """What is open ends with an error, and what is asked afterwards is refused."""
    with Engine.load(tiny_engine_dir, threads=1, warm_up=False) as engine:
        session = engine.session(unread=0.01)
        running = session.stream(utterance(1), sample_rate=16_000)
        next(running)
    with pytest.raises(SettingError, match="closed"):
        list(running)
    for ask in (engine.session, lambda: engine.stream(text="hello"), lambda: session.stream(text="hello")):
        with pytest.raises(SettingError, match="closed"):
            ask()
    engine.close()


def test_inline_and_threaded_give_the_same(tiny_engine_dir: Path, utterance: Utterance) -> None:
    """Two turns of a conversation, the second typed; with sampling, in chunks of either kind."""
    found = []
    for schedule in ("threaded", "inline"):
        with (
            Engine.load(tiny_engine_dir, threads=1, warm_up=False, schedule=schedule) as engine,
            engine.session(seed=3, max_new_tokens=12, max_last_write=40) as session,
        ):
            spoken = list(session.stream(utterance(1), sample_rate=16_000))
            typed = list(session.stream(text="and then?"))
            reply = [exchange.reply for exchange in session._state.history.exchanges]
            sound = [(chunk.pcm.tobytes(), chunk.units, chunk.final) for chunk in (*spoken, *typed)]
            found.append((sound, reply, session._state.history.fed))
    assert found[0] == found[1]


def test_an_inline_turn_runs_on_the_thread_that_takes_it(tiny_engine_dir: Path, utterance: Utterance) -> None:
    threads = set()
    with Engine.load(tiny_engine_dir, threads=1, warm_up=False, schedule="inline") as engine:
        answer = engine.stream(
            utterance(1), sample_rate=16_000, on_text=lambda _: threads.add(threading.current_thread()), **LIMITS
        )
        assert not threads
        assert next(answer).index == 0
        answer.close()
        with pytest.raises(RuntimeError, match="enough"):
            list(engine.stream(text="hello", on_text=_fail, **LIMITS))
    assert threads == {threading.current_thread()}


def _fail(_: str) -> None:
    raise RuntimeError("enough")
