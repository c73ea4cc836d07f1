"""The sound of the present turn: bounded, with its place in the input."""

from __future__ import annotations

from collections import deque

import numpy as np

from omni2_engine.live.detection.base import Floats


class SpeechBuffer:
    """Keeps the first samples behind a moving beginning. What comes when it is full is counted and not kept, and so is
    all that follows until it is emptied.

    Args:
        most: samples at most.

    Attributes:
        position: samples of the input so far.
    """

    def __init__(self, most: int) -> None:
        self.position = 0
        self._most = most
        self._pieces: deque[Floats] = deque()
        self._first = 0  # position of the first sample that is kept
        self._kept = 0

    def append(self, samples: Floats) -> None:
        """Add the next samples of the input."""
        follows = self._first + self._kept == self.position  # on the last that was kept
        self.position += len(samples)
        piece = samples[: self._most - self._kept]
        if follows and len(piece):
            self._pieces.append(piece)
            self._kept += len(piece)

    def forget_before(self, position: int) -> None:
        """Drop what lies before a position of the input."""
        if position >= self._first + self._kept:  # all of it, and what was not kept
            self._pieces.clear()
            self._first, self._kept = self.position, 0
        while self._first < position:
            gone = min(position - self._first, len(self._pieces[0]))
            rest = self._pieces.popleft()[gone:]
            if len(rest):
                self._pieces.appendleft(rest)
            self._first += gone
            self._kept -= gone

    def between(self, begin: int, end: int) -> Floats:
        """What is kept of a stretch of the input, (n,) float32."""
        sound = np.concatenate([np.zeros(0, np.float32), *self._pieces])
        return sound[max(begin - self._first, 0) : max(end - self._first, 0)]
