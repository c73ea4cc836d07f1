"""What a turn yields: a piece of sound with its place in time and the text that goes with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Chunk:
    """A piece of the answer.

    Args:
        pcm: (n,) float32 mono; may exceed ±1 a little where chunks cross-fade, so 16-bit output must saturate. Empty
            only in a turn that has text but no sound.
        sample_rate: of `pcm`, Hz.
        index: number of the chunk within the turn.
        start: seconds of sound before this chunk.
        text: text written since the last chunk, whole characters only; it runs ahead of the sound.
        spoken: the answer's text from its beginning up to what this chunk speaks, as far as the rounds of reading and
            writing tell.
        units: speech units voiced so far in the turn.
        final: nothing follows.
    """

    pcm: NDArray[np.float32]
    sample_rate: int
    index: int
    start: float
    text: str
    spoken: str
    units: int
    final: bool

    @property
    def duration(self) -> float:
        """Seconds of sound in this chunk."""
        return len(self.pcm) / self.sample_rate

    @property
    def end(self) -> float:
        """Seconds of sound up to and including this chunk."""
        return self.start + self.duration
