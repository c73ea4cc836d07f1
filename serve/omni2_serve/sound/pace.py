"""How far a client's sound is ahead of what could have been spoken."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

CATCH_UP = 1.1  # seconds of sound a second: clocks of sound cards differ, and networks stall and catch up


class Pace:
    """A bucket that leaks as fast as people speak.

    Args:
        ahead: seconds of sound that it holds.
        clock: seconds.
    """

    def __init__(self, ahead: float, clock: Callable[[], float] = monotonic) -> None:
        self._ahead = ahead
        self._clock = clock
        self._held = 0.0
        self._at = clock()

    def add(self, seconds: float) -> None:
        """Sound has come."""
        self._leak()
        self._held += seconds

    def wait(self) -> float:
        """Seconds to wait before more is read."""
        self._leak()
        return max(0.0, self._held - self._ahead) / CATCH_UP

    def _leak(self) -> None:
        now = self._clock()
        self._held = max(0.0, self._held - CATCH_UP * (now - self._at))
        self._at = now
