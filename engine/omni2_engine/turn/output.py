"""Where a turn's chunks wait for their consumer: bounded by pausing the producer, never by dropping."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

from omni2_engine.turn.chunk import Chunk


class DeadlinePassed(Exception):
    """No chunk came in time. Not a TimeoutError, which a step of the turn may raise for reasons of its own."""


class ChunkQueue:
    """Chunks of one turn on their way from the threads that make them to the consumer, a thread or a coroutine.

    Args:
        most: seconds of sound that may lie unread; with more the producer is held.
        hold: told True when the producer should pause, False when it may go on; called with a lock held, so it must
            not wait.
        on_first: called when the first chunk comes, likewise.

    Attributes:
        on_first: as given; may be changed before the first chunk.
    """

    def __init__(self, most: float, hold: Callable[[bool], None], on_first: Callable[[], None] = lambda: None) -> None:
        self._most = most
        self._hold = hold
        self.on_first = on_first
        self._any = False
        self._chunks: deque[Chunk] = deque()
        self._seconds = 0.0
        self._held = False
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def put(self, chunk: Chunk) -> None:
        """Add a chunk; one that comes after the end is dropped."""
        with self._changed:
            if self._ended:
                return
            if not self._any:
                self._any = True
                self.on_first()
            self._chunks.append(chunk)
            self._seconds += chunk.duration
            self._update()
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will come. With an error the consumer gets that, after the chunks it has not read yet. The
        first call counts."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._wake()

    def discard(self) -> None:
        """`end`, and drop what is unread."""
        with self._changed:
            self._chunks.clear()
            self._seconds = 0.0
            self.end()

    @property
    def ready(self) -> bool:
        """Whether `get` need not wait."""
        with self._changed:
            return bool(self._chunks) or self._ended

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        with self._changed:
            return self._ended

    def get(self, timeout: float | None = None) -> Chunk | None:
        """Wait for the next chunk.

        Args:
            timeout: seconds; as long as it takes if None.

        Returns:
            The chunk; None at the end.

        Raises:
            DeadlinePassed: nothing came in time.
            BaseException: what `end` was given.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._chunks or self._ended, timeout):
                raise DeadlinePassed
            return self._take()

    async def aget(self, timeout: float | None = None) -> Chunk | None:
        """`get` for a coroutine; no thread waits meanwhile."""
        arrived = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                while not self._is_ready_or_tells(arrived):
                    await arrived.wait()
        except TimeoutError:
            raise DeadlinePassed from None
        with self._changed:
            self._waiter = None
            return self._take()

    def _is_ready_or_tells(self, arrived: asyncio.Event) -> bool:
        """Whether there is something to take; if not, the event is set at the next change."""
        with self._changed:
            if self._chunks or self._ended:
                return True
            arrived.clear()
            self._waiter = asyncio.get_running_loop(), arrived
            return False

    def _wake(self) -> None:
        """Tell the consumer that something has changed."""
        self._changed.notify_all()
        if self._waiter is not None:
            loop, arrived = self._waiter
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, and nothing waits in it
                loop.call_soon_threadsafe(arrived.set)

    def _take(self) -> Chunk | None:
        if not self._chunks:
            error, self._error = self._error, None  # it will refer to this frame, and must not be kept by it
            try:
                if error is not None:
                    raise error
                return None
            finally:
                del error
        chunk = self._chunks.popleft()
        self._seconds = self._seconds - chunk.duration if self._chunks else 0.0  # free of rounding
        self._update()
        return chunk

    def _update(self) -> None:
        """Hold the producer once too much is unread, let it go on when half of that is left."""
        full = self._seconds > (self._most / 2 if self._held else self._most)
        if full != self._held and not self._ended:
            self._held = full
            self._hold(full)
