"""How much of an answer has been heard: by what the player says, and by the clock between."""

from __future__ import annotations

import threading
from collections.abc import Callable

Clock = Callable[[], float]  # seconds from any moment on


class Playback:
    """The player of one answer: it waits for the first chunk's `start_in`, then plays what it has.

    Args:
        clock: tells the time.
        begins: moment of the clock before which it plays nothing: that at which the answer before ends.
    """

    def __init__(self, clock: Clock, begins: float) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._made = 0.0  # seconds of sound that it was given
        self._place = 0.0  # seconds played
        self._since = begins  # when that was
        self._begun = False

    def add(self, seconds: float, start_in: float) -> None:
        """The player has got another chunk."""
        with self._lock:
            now = self._clock()
            if self._begun:
                self._place, self._since = self._played(now), max(now, self._since)
            else:
                self._begun, self._since = True, max(now + start_in, self._since)
            self._made += seconds

    def said(self, seconds: float) -> None:
        """The player says how much it has played."""
        with self._lock:
            self._begun = True
            self._place, self._since = max(seconds, 0.0), self._clock()

    def stop(self, heard: float | None) -> float:
        """It plays no more.

        Args:
            heard: seconds that were heard; None for what is known here.

        Returns:
            These seconds, at most what it was given.
        """
        with self._lock:
            self._place = min(self._played(self._clock()) if heard is None else max(heard, 0.0), self._made)
            self._made = self._place
            return self._place

    @property
    def end(self) -> float:
        """The moment of the clock at which it has played all it was given."""
        with self._lock:
            return self._since + max(self._made - self._place, 0.0)

    @property
    def playing(self) -> bool:
        """Whether it has something left to play."""
        with self._lock:
            return self._played(self._clock()) < self._made

    def _played(self, now: float) -> float:
        return min(self._place + max(now - self._since, 0.0), self._made)
