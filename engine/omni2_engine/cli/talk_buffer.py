"""How long the player of `omni2-engine talk` waits with an answer's first sound beyond `Chunk.start_in`, so that what
comes later than was foreseen leaves no gap. The server's page does the same in `playout_delay.js`."""

from __future__ import annotations

from collections import deque

LEAST = 0.04  # seconds: a few callbacks of a sound card
MOST = 1.0  # seconds
SPARE = 0.02  # seconds beyond what would have done
REMEMBERED = 6  # answers


class PlayoutDelay:
    """Follows how late sound came in the last answers. Times are seconds of one clock.

    Args:
        least: seconds to wait where nothing came late.
        most: seconds to wait however late it came.
    """

    def __init__(self, least: float = LEAST, most: float = MOST) -> None:
        self._least, self._most = least, most
        self._needs: deque[float] = deque(maxlen=REMEMBERED)  # of each answer: the delay that would have left no gap
        self._began = 0.0  # when the present answer could have been played
        self._sound = 0.0  # seconds of it that have come

    @property
    def seconds(self) -> float:
        """The delay."""
        return min(self._most, max([self._least, *(need + SPARE for need in self._needs)]))

    def begin(self, at: float) -> None:
        """An answer begins; without a delay it would be played from the time `at` on."""
        self._began, self._sound = at, 0.0
        self._needs.append(0.0)

    def arrived(self, now: float, seconds: float) -> None:
        """`seconds` of its sound came at the time `now`."""
        self._needs[-1] = max(self._needs[-1], now - self._began - self._sound)
        self._sound += seconds


def no_delay() -> PlayoutDelay:
    """For a file: it is written in real time, and no callback of a sound card has to be served."""
    return PlayoutDelay(0.0, 0.0)
