"""Events on their way to the consumer, a thread or a coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

from omni2_engine.live.events import Event, SoundMade


class EventQueue:
    """Keeps the order. `put` never waits; who makes sound waits in `wait_for_room` until the sound before is taken."""

    def __init__(self) -> None:
        self._events: deque[tuple[Event, Callable[[], None]]] = deque()
        self._ended = False
        self._changed = threading.Condition(threading.RLock())
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def put(self, event: Event, taken: Callable[[], None] = lambda: None) -> None:
        """Add an event; one that comes after the end is dropped.

        Args:
            event: what happened.
            taken: called on the consumer's thread when it is taken.
        """
        with self._changed:
            if not self._ended:
                self._events.append((event, taken))
                self._wake()

    def end(self, discard: bool = False) -> None:
        """Nothing more will come, and what was not taken is dropped if asked for."""
        with self._changed:
            self._ended = True
            if discard:
                self._events.clear()
            self._wake()

    def drop_sound(self, turn: int) -> None:
        """Drop the sound of a turn that was not taken yet."""
        with self._changed:
            self._events = deque(entry for entry in self._events if not _is_sound(entry[0], turn))
            self._wake()

    def has_sound(self, turn: int) -> bool:
        """Whether sound of a turn was not taken yet."""
        with self._changed:
            return any(_is_sound(event, turn) for event, _ in self._events)

    def wait_for_room(self, turn: int) -> None:
        """Wait until no sound of a turn lies here, or the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or not self.has_sound(turn))

    def get(self) -> Event | None:
        """Wait for the next event; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._ended)
            return self._take()

    async def aget(self) -> Event | None:
        """`get` for a coroutine; no thread waits meanwhile."""
        arrived = asyncio.Event()
        while not self._is_ready_or_tells(arrived):
            await arrived.wait()
        with self._changed:
            self._waiter = None
            return self._take()

    def _is_ready_or_tells(self, arrived: asyncio.Event) -> bool:
        """Whether there is something to take; if not, the event is set at the next change."""
        with self._changed:
            if self._events or self._ended:
                return True
            arrived.clear()
            self._waiter = asyncio.get_running_loop(), arrived
            return False

    def _take(self) -> Event | None:
        if not self._events:
            return None
        event, taken = self._events.popleft()
        taken()
        self._changed.notify_all()
        return event

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._waiter is not None:
            loop, arrived = self._waiter
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, and nothing waits in it
                loop.call_soon_threadsafe(arrived.set)


def _is_sound(event: Event, turn: int) -> bool:
    return isinstance(event, SoundMade) and event.turn == turn
