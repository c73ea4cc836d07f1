"""How a turn's sound becomes chunks: each gets its place in time and the text that goes with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine.turn.chunk import Chunk

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class VocodedSound:
    """What a vocoder step made.

    Args:
        pcm: (n,) float32.
        units: taken by the flow up to here.
        characters: of text that were written by then.
        final: nothing follows.
    """

    pcm: Floats
    units: int
    characters: int
    final: bool


class ChunkMaker:
    """Makes the chunks of one turn. Guarded by the lock of its `TurnRun`.

    Args:
        rate: of the sound, Hz.
        lookahead: units that the flow has taken and voices with those that follow.

    Attributes:
        text: all of the answer so far; the turn adds to it.
    """

    def __init__(self, rate: int, lookahead: int) -> None:
        self._rate = rate
        self._lookahead = lookahead
        self.text = ""
        self._groups: list[int] = []  # characters of the text up to the end of each group
        self._rounds: list[int] = []  # units before each round, in which the speech LM reads a group
        self._sent = 0  # characters that went out with chunks
        self._seconds = 0.0
        self._chunks = 0

    def end_group(self) -> None:
        """The text so far ends a group, which the speech LM reads in a round to come."""
        self._groups.append(len(self.text))

    def begin_round(self, units: int) -> None:
        """The speech LM reads the next group, after this number of units."""
        self._rounds.append(units)

    def make(self, sound: VocodedSound, start_in: float, finish_reason: str | None) -> Chunk:
        """The next chunk.

        Args:
            sound: of it.
            start_in, finish_reason: see `Chunk`.
        """
        text = self.text[: sound.characters]
        spoken = text if sound.final else text[: self._voiced(sound.units)]
        chunk = Chunk(
            sound.pcm,
            self._rate,
            self._chunks,
            self._seconds,
            text[self._sent :],
            spoken,
            sound.units,
            sound.final,
            finish_reason,
            start_in,
        )
        self._sent = len(text)
        self._seconds += chunk.duration
        self._chunks += 1
        return chunk

    def _voiced(self, units: int) -> int:
        """Characters of the text whose speech has begun with these units."""
        rounds = zip(self._rounds, self._groups, strict=False)  # a group may wait for its round
        read = [characters for before, characters in rounds if before < units - self._lookahead]
        return read[-1] if read else 0
