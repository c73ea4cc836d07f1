"""Where a turn's chunks wait for their consumer: bounded by telling the producer to pause, never by dropping."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from omni2_engine.chunk import Chunk


class ChunkQueue:
    """Chunks of one turn on their way from the scheduler's threads to the consumer's.

    Args:
        most: seconds of sound that may lie unread; with more the producer is held.
        hold: told True when the producer should pause, False when it may go on; called with a lock held, so it must
            not wait.
    """

    def __init__(self, most: float, hold: Callable[[bool], None]) -> None:
        self._most = most
        self._hold = hold
        self._chunks: deque[Chunk] = deque()
        self._seconds = 0.0
        self._held = False
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, chunk: Chunk) -> None:
        """Add a chunk; one that comes after the end is dropped."""
        with self._changed:
            if self._ended:
                return
            self._chunks.append(chunk)
            self._seconds += chunk.duration
            self._update()
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will come. With an error the consumer gets that, after the chunks it has not read yet. The
        first call counts."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def discard(self) -> None:
        """`end`, and drop what is unread."""
        with self._changed:
            self._chunks.clear()
            self._seconds = 0.0
            self.end()

    def __iter__(self) -> Iterator[Chunk]:
        """Wait for each chunk in turn.

        Raises:
            BaseException: what `end` was given.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._chunks or self._ended)
                if not self._chunks:
                    error, self._error = self._error, None  # it will refer to this frame, and must not be kept by it
                    try:
                        if error is not None:
                            raise error
                        return
                    finally:
                        del error
                chunk = self._chunks.popleft()
                self._seconds = self._seconds - chunk.duration if self._chunks else 0.0  # free of rounding
                self._update()
            yield chunk

    def _update(self) -> None:
        """Hold the producer once too much is unread, let it go on when half of that is left."""
        full = self._seconds > (self._most / 2 if self._held else self._most)
        if full != self._held and not self._ended:
            self._held = full
            self._hold(full)
