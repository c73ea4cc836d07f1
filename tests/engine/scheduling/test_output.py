"""The queue between a turn's producer and its consumer: order, back-pressure, ends of every kind."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.output import ChunkQueue

from ...waiting import SOON, sleeps

RATE = 1000


def chunk(index: int, samples: int = RATE) -> Chunk:
    return Chunk(np.zeros(samples, np.float32), RATE, index, 0.0, "", "", 0, False)


class Switch:
    """What the queue tells its producer."""

    def __init__(self) -> None:
        self.said: list[bool] = []

    @property
    def held(self) -> bool:
        return self.said[-1] if self.said else False

    def __call__(self, held: bool) -> None:
        assert held != self.held  # only changes are told
        self.said.append(held)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def finished(thread: threading.Thread) -> bool:
    thread.join(SOON)
    return not thread.is_alive()


def test_chunks_come_in_order_and_then_the_end() -> None:
    queue = ChunkQueue(100.0, Switch())
    for index in range(5):
        queue.put(chunk(index))
    queue.end()
    queue.put(chunk(5))  # too late
    assert [chunk.index for chunk in iter(queue.get, None)] == [0, 1, 2, 3, 4]
    assert list(iter(queue.get, None)) == []


def test_it_holds_the_producer_and_lets_it_go_on_at_half() -> None:
    switch = Switch()
    queue = ChunkQueue(4.0, switch)
    taken = iter(queue.get, None)
    for index in range(4):
        queue.put(chunk(index))
    assert switch.said == []  # that many may be unread
    queue.put(chunk(4))
    assert switch.said == [True]
    queue.put(chunk(5))  # a step that was running
    for _ in range(3):
        next(taken)
    assert switch.said == [True]  # three left
    next(taken)
    assert switch.said == [True, False]
    assert [next(taken).index, next(taken).index] == [4, 5]
    assert switch.said == [True, False]


@given(
    most=st.floats(1e-300, 5.0),
    moves=st.lists(st.one_of(st.just("take"), st.integers(0, 3000)), max_size=60),
)
def test_back_pressure_follows_what_is_unread(most: float, moves: list[str | int]) -> None:
    switch = Switch()
    queue = ChunkQueue(most, switch)
    taken, unread, count = iter(queue.get, None), [], 0
    for move in moves:
        before = switch.held
        if move != "take":
            assert isinstance(move, int)
            queue.put(chunk(count, move))
            unread.append((count, move))
            count += 1
        elif unread:
            assert next(taken).index == unread.pop(0)[0]
        samples = sum(size for _, size in unread)
        limit = most * RATE * (0.5 if before else 1.0)
        if abs(samples - limit) > 1e-6:  # seconds are added up with rounding
            assert switch.held == (samples > limit)
        assert not (switch.held and not unread)  # or the session would never go on


def test_rounding_holds_no_session() -> None:
    """0.1 s + 0.2 s − 0.1 s − 0.2 s is not nothing to a computer."""
    switch = Switch()
    queue = ChunkQueue(1e-300, switch)
    queue.put(chunk(0, 100))
    queue.put(chunk(1, 200))
    taken = iter(queue.get, None)
    next(taken), next(taken)
    assert switch.said == [True, False]


def test_an_error_comes_after_what_is_unread() -> None:
    queue, error = ChunkQueue(100.0, Switch()), ValueError("broken")
    queue.put(chunk(0))
    queue.end(error)
    queue.end(RuntimeError("a later one"))
    queue.end()
    taken = iter(queue.get, None)
    assert next(taken).index == 0
    with pytest.raises(ValueError, match="broken") as raised:
        next(taken)
    assert raised.value is error


def test_the_first_end_counts() -> None:
    queue = ChunkQueue(100.0, Switch())
    queue.end()
    queue.end(ValueError("too late"))
    assert list(iter(queue.get, None)) == []


def test_discarding_drops_what_is_unread_and_holds_no_session() -> None:
    switch = Switch()
    queue = ChunkQueue(1.0, switch)
    queue.put(chunk(0))
    queue.discard()
    queue.put(chunk(1, 10 * RATE))
    assert list(iter(queue.get, None)) == [] and switch.said == []


def test_discarding_keeps_an_error_that_came_before() -> None:
    queue = ChunkQueue(1.0, Switch())
    queue.put(chunk(0))
    queue.end(ValueError("broken"))
    queue.discard()
    with pytest.raises(ValueError, match="broken"):
        next(iter(queue.get, None))


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (lambda queue: queue.put(chunk(7)), [7]),
        (lambda queue: queue.end(), []),
        (lambda queue: queue.discard(), []),
        (lambda queue: queue.end(ValueError("broken")), ["broken"]),
    ],
)
def test_a_waiting_consumer_is_woken(act: Callable[[ChunkQueue], None], outcome: list[object]) -> None:
    queue, found, waits = ChunkQueue(1.0, Switch()), [], threading.Event()

    def consume() -> None:
        taken = iter(queue.get, None)
        waits.set()
        try:
            found.extend(chunk.index for chunk in taken)
        except ValueError as error:
            found.append(str(error))

    consumer = in_thread(consume)
    assert waits.wait(SOON) and sleeps(consumer)
    act(queue)
    if outcome == [7]:
        queue.end()
    assert finished(consumer)
    assert found == outcome


def test_a_producer_that_obeys_is_bounded_and_never_stuck() -> None:
    """Chunks of two seconds through a queue of three, between two threads."""
    go = threading.Event()
    go.set()
    queue = ChunkQueue(3.0, lambda held: go.clear() if held else go.set())
    lock, unread, worst = threading.Lock(), 0, 0

    def produce() -> None:
        nonlocal unread, worst
        for index in range(2000):
            assert go.wait(SOON)
            with lock:
                unread += 1
                worst = max(worst, unread)
            queue.put(chunk(index, 2 * RATE))
        queue.end()

    producer = in_thread(produce)
    for index, taken in enumerate(iter(queue.get, None)):
        assert taken.index == index
        with lock:
            unread -= 1
    assert finished(producer)
    assert index == 1999
    assert worst <= 3  # two make it hold; one more that the consumer has taken and this test not yet counted


class Marker:
    """Something in the consumer's frame."""


def test_an_error_that_was_raised_is_not_kept() -> None:
    """Its traceback holds the consumer's frame: were it kept, so would be all the frame refers to."""

    def consume() -> weakref.ref[Marker]:
        queue, marker = ChunkQueue(1.0, Switch()), Marker()

        def turn() -> Iterator[Chunk]:
            held = marker  # as a turn's caches are
            yield from iter(queue.get, None)
            assert held is None

        queue.end(ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            next(turn())
        return weakref.ref(marker)

    gc.collect()
    gc.disable()
    try:
        assert consume()() is None
    finally:
        gc.enable()
