"""When a player may start so that it does not run dry.

Chunk k of a turn arrives at a_k with d_k seconds of sound. A player that starts w seconds after the first chunk needs
chunk k at a_0 + w + d_0 + … + d_(k−1), so it never runs dry if w + d_0 is at least, for every chunk,

    N_k = a_k − a_0 − (d_1 + … + d_(k−1)),

which may be negative. What chunks to come need is foreseen from the turns seen lately and from this one. Each of these
turns asks for

    max N_k  +  half its mean time between two chunks  +  max(0, pace − 1) · (S − its sound),   k ≥ 1.

The second term is for times that vary. The third is for an engine slower than real time, whose need grows with the
answer: pace is the time from the second chunk to the last over the sound that came in it, S the longest sound of these
turns, and at least 5 s. The wait is the largest that any of the turns asks for, less the sound of the first chunk.

Some turns begin with more sound than others: those that were prepared, or whose first chunk came late and grew. What
they need says little about a turn that begins with less, whose chunks will be shorter, so they are asked only where no
other is. Their pace counts all the same: the wait is at least max(0, pace − 1) times the sound behind the first chunk.
What is left of the wait at a later chunk is the wait less the time since the first.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence

from omni2_engine.settings.tuning import PLAYOUT

Stretch = tuple[float, float]  # (start, length), seconds


class Arrivals:
    """The chunks of one turn as they arrived.

    Args:
        measured: seconds of sound after which arrivals say nothing about the engine: it may wait for its player.

    Attributes:
        sound: seconds of sound measured.
        begins_with: seconds of sound of the first chunk.
    """

    def __init__(self, measured: float = math.inf) -> None:
        self.sound = self.begins_with = 0.0
        self._measured = measured
        self._first: float | None = None  # arrival of the first chunk
        self._last = 0.0  # of the last one measured
        self._second: tuple[float, float] | None = None  # arrival of the second, and sound up to its end
        self._most = -math.inf  # N_k
        self._intervals = 0  # between chunks

    def add(self, now: float, seconds: float) -> float:
        """Note a chunk.

        Args:
            now: when it arrived.
            seconds: of sound in it.

        Returns:
            Seconds since the first one arrived.
        """
        if self._first is None:
            self._first, self.begins_with = now, seconds
        elif self.sound + seconds <= self._measured:
            self._most = max(self._most, now - self._first - (self.sound - self.begins_with))
            self._intervals += 1
            self._second = self._second or (now, self.sound + seconds)
        else:
            self._measured = 0.0  # what comes later counts no more
            return now - self._first
        self._last = now
        self.sound += seconds
        return now - self._first

    def needed(self, sound: float) -> float:
        """Seconds of sound that a turn like this one needs in hand for a player to start; −∞ before the second chunk.

        Args:
            sound: seconds of sound to expect.
        """
        if self._first is None or not self._intervals:
            return -math.inf
        usual = (self._last - self._first) / self._intervals
        return self._most + PLAYOUT.variation * usual + self.lost * max(0.0, sound - self.sound)

    @property
    def lost(self) -> float:
        """Seconds by which an engine slower than real time falls behind in a second of sound; else 0."""
        return max(0.0, self._pace() - 1)

    def _pace(self) -> float:
        """Seconds per second of sound from the second chunk on; 0 where there are no more than two."""
        time, sound = self._second or (0.0, self.sound)
        return (self._last - time) / (self.sound - sound) if self.sound > sound else 0.0


class Playout:
    """The turns that an engine made lately, and what they say about the next."""

    def __init__(self) -> None:
        self._recent: deque[Arrivals] = deque(maxlen=PLAYOUT.recent)
        self._lock = threading.Lock()

    def begin(self, measured: float = math.inf) -> Arrivals:
        """The arrivals of a new turn, see `Arrivals`."""
        turn = Arrivals(measured)
        with self._lock:
            self._recent.append(turn)
        return turn

    def start_in(self, turn: Arrivals, now: float, seconds: float) -> float:
        """Note a chunk of a turn that goes on.

        Args:
            turn: from `begin`.
            now: when the chunk arrived, on any clock in seconds.
            seconds: of sound in it.

        Returns:
            Seconds from now that a player which has not started should wait; 0 if nothing has been seen yet.
        """
        elapsed = turn.add(now, seconds)
        with self._lock:
            turns = [*self._recent, turn]
            expected = max(PLAYOUT.usual_sound, *(seen.sound for seen in turns))
            lost = max(seen.lost for seen in turns)
            needs = [(seen.begins_with, seen.needed(expected)) for seen in turns]
        begins_with = turn.begins_with
        alike = [need for began_with, need in needs if began_with <= begins_with and need > -math.inf]
        needed = max(alike or [need for _, need in needs])
        return max(0.0, max(needed - begins_with, lost * (expected - begins_with)) - elapsed)


def playback(
    ready: Sequence[float], durations: Sequence[float], wait: float = 0.0
) -> tuple[list[Stretch], list[Stretch]]:
    """What a player does: the stretches in which it plays, and those in which it has run dry.

    Args:
        ready: when each chunk was there, seconds.
        durations: seconds of sound in each.
        wait: seconds after the first chunk at which the player starts.
    """
    playing: list[Stretch] = []
    dry: list[Stretch] = []
    end = ready[0] + wait if ready else 0.0
    for time, seconds in zip(ready, durations, strict=True):
        if time > end:
            dry.append((end, time - end))
        playing.append((max(end, time), seconds))
        end = max(end, time) + seconds
    return playing, dry
