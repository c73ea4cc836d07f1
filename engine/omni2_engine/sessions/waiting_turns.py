"""How many turns may wait for their first sound, and how long a further one would."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from omni2_engine.errors import BusyError
from omni2_engine.settings.tuning import SESSIONS

log = logging.getLogger("omni2_engine.sessions")


class WaitingTurns:
    """Turns that were asked and have made no sound yet. Any thread may use it.

    Args:
        limit: turns at most; None for no limit.
        clock: seconds.
    """

    def __init__(self, limit: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._asked: dict[int, float] = {}  # ticket → when
        self._next = 0
        self._last_sound = -float("inf")  # when a turn made its first sound
        self._each: float | None = None  # seconds between the first sounds of turns that wait
        self._lock = threading.RLock()  # garbage collection may end a turn at any moment, in here too

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def expected(self) -> float:
        """Seconds until a turn asked now would make its first sound, by the turns before; 0 before there were any."""
        with self._lock:
            return (len(self._asked) + 1) * (self._each or 0.0)

    @property
    def longest(self) -> float:
        """Seconds since the oldest of them was asked; 0 if there is none."""
        with self._lock:
            return self._clock() - min(self._asked.values()) if self._asked else 0.0

    def enter(self) -> int:
        """A turn is asked.

        Returns:
            A ticket for `leave`.

        Raises:
            BusyError: as many wait as may.
        """
        with self._lock:
            if self._limit is not None and len(self._asked) >= self._limit:
                log.info("turn refused: %d wait, ask again in %.1f s", len(self._asked), self.expected)
                raise BusyError(
                    f"{len(self._asked)} turns wait for their first sound, and no more may (max_waiting)",
                    self.expected,
                )
            self._next += 1
            self._asked[self._next] = self._clock()
            return self._next

    def leave(self, ticket: int | None, sounded: bool) -> None:
        """A turn waits no more; a second time does nothing.

        Args:
            ticket: of `enter`; None if it never waited.
            sounded: it has made its first sound; else it ended before.
        """
        with self._lock:
            asked = None if ticket is None else self._asked.pop(ticket, None)
            if asked is None or not sounded:
                return
            now = self._clock()
            took = now - max(asked, self._last_sound)  # the time before that went to the turns before
            self._last_sound = now
            self._each = took if self._each is None else self._each + SESSIONS.smoothing * (took - self._each)
