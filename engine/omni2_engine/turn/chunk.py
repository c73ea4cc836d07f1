"""What a turn yields: a piece of sound with its place in time and the text that goes with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CANCELLED = "cancelled"  # finish reason


@dataclass(frozen=True)
class Chunk:
    """A piece of the answer.

    Args:
        pcm: (n,) float32 mono; may exceed ±1 a little where chunks cross-fade, so 16-bit output must saturate. Empty
            only in a last chunk: where a turn was cancelled, or has no more sound.
        sample_rate: of `pcm`, Hz.
        index: number of the chunk within the turn.
        start: seconds of sound before this chunk.
        text: text written since the last chunk, whole characters only; it runs ahead of the sound.
        spoken: the answer's text from its beginning up to what this chunk speaks, as far as the rounds of reading and
            writing tell.
        units: speech units synthesised so far in the turn.
        final: nothing follows. Every turn ends with such a chunk, unless it raises an error.
        finish_reason: of the final chunk, how the turn ended: "end" (the model ended it), "limit" (`max_new_tokens` was
            reached) or "cancelled"; None before.
        start_in: seconds from this chunk's arrival that a player which has not started should wait, so that it does not
            run dry later; 0 if it can start at once. Foreseen from this engine's recent turns, see `playout.py`.
    """

    pcm: NDArray[np.float32]
    sample_rate: int
    index: int
    start: float
    text: str
    spoken: str
    units: int
    final: bool
    finish_reason: str | None = None
    start_in: float = 0.0

    @property
    def duration(self) -> float:
        """Seconds of sound in this chunk."""
        return len(self.pcm) / self.sample_rate

    @property
    def end(self) -> float:
        """Seconds of sound up to and including this chunk."""
        return self.start + self.duration


def cancelled_chunk(last: Chunk | None, text: str, sample_rate: int) -> Chunk:
    """The chunk that ends a cancelled turn.

    Args:
        last: the one before, if there is one.
        text: written since.
        sample_rate: Hz.
    """
    index, start, spoken, units = (last.index + 1, last.end, last.spoken, last.units) if last else (0, 0.0, "", 0)
    return Chunk(np.zeros(0, np.float32), sample_rate, index, start, text, spoken, units, True, CANCELLED)
