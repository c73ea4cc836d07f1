"""What a simulated turn was like for the one who listens, and many of them in a few figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from omni2_bench.common.statistics import Starvation, continuity, starvation
from omni2_engine.turn.playout import Stretch, playback


@dataclass
class SimulatedTurn:
    """One question and its answer.

    Args:
        session: number of the session.
        asked: when the question ended, seconds.
        ready: when each chunk was there.
        durations: seconds of sound in each.
    """

    session: int
    asked: float
    ready: list[float] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)

    def hear(self, time: float, seconds: float) -> None:
        """A chunk is there; one without sound is none."""
        if seconds > 0:
            self.ready.append(time)
            self.durations.append(seconds)

    @property
    def first_chunk(self) -> float:
        """Seconds from the question to the first sound."""
        return self.ready[0] - self.asked

    @property
    def rtf(self) -> float:
        """Seconds from the question to the last chunk over seconds of sound."""
        return (self.ready[-1] - self.asked) / sum(self.durations)

    @property
    def starving(self) -> list[Stretch]:
        """(start, length) of the times for which a player that starts at the first chunk has nothing to play."""
        return playback(self.ready, self.durations)[1]

    @property
    def gaps(self) -> Starvation:
        """Of a player that starts at the first chunk."""
        return starvation(self.ready, self.durations)

    @property
    def heard(self) -> float:
        """When a player that starts at the first chunk has played everything."""
        return self.ready[0] + sum(self.durations) + self.gaps.total


@dataclass(frozen=True)
class Figures:
    """Many turns.

    Attributes:
        turns: how many.
        first_chunk, first_chunk_p90: seconds, median and 90th percentile.
        rtf: median.
        underrun: worst underrun of a turn, seconds, median.
        underrun_p90: its 90th percentile.
        continuity: share of turns whose worst underrun is too short to be heard.
    """

    turns: int
    first_chunk: float
    first_chunk_p90: float
    rtf: float
    underrun: float
    underrun_p90: float
    continuity: float


def figures(turns: Sequence[SimulatedTurn]) -> Figures:
    """Summarise turns that all came to their end."""
    first, worst = [turn.first_chunk for turn in turns], [turn.gaps.worst for turn in turns]
    return Figures(
        turns=len(turns),
        first_chunk=float(np.median(first)),
        first_chunk_p90=float(np.percentile(first, 90)),
        rtf=float(np.median([turn.rtf for turn in turns])),
        underrun=float(np.median(worst)),
        underrun_p90=float(np.percentile(worst, 90)),
        continuity=continuity(worst),
    )
