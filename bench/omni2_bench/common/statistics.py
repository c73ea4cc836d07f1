"""Figures out of times: medians with spread, starvation of a player, growth of the cost per chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from omni2_engine.errors import SettingError
from omni2_engine.turn.playout import playback

AUDIBLE = 0.1  # seconds of silence in a turn's speech that make it discontinuous
STEADY = 0.1  # a cost that the fitted line changes by less than this share of its mean is called constant


@dataclass(frozen=True)
class Summary:
    """Median and spread of a few runs."""

    median: float
    p10: float
    p90: float


def summarise(values: Sequence[float]) -> Summary:
    """Median, 10th and 90th percentile (linear between values)."""
    p10, median, p90 = np.percentile(np.asarray(values, np.float64), (10, 50, 90))
    return Summary(float(median), float(p10), float(p90))


@dataclass(frozen=True)
class Starvation:
    """How long a player has nothing to play once it has started: in all, and at the longest."""

    total: float
    worst: float


def starvation(ready: Sequence[float], durations: Sequence[float], wait: float = 0.0) -> Starvation:
    """Play chunks as they come.

    Args:
        ready: when each chunk was there, seconds.
        durations: seconds of sound in each.
        wait: seconds after the first chunk at which the player starts.
    """
    gaps = [0.0, *(length for _, length in playback(ready, durations, wait)[1])]
    return Starvation(sum(gaps), max(gaps))


def continuity(worst: Sequence[float]) -> float:
    """Share of turns whose worst underrun is too short to be heard."""
    return sum(gap < AUDIBLE for gap in worst) / len(worst)


def chunk_costs(ready: Sequence[float], prefilled: float) -> list[float]:
    """Seconds of work in every chunk, the first counted from the end of the prefill."""
    costs: list[float] = np.diff([prefilled, *ready]).tolist()
    return costs


@dataclass(frozen=True)
class Blocks:
    """How chunks lie in the flow's attention blocks: chunk k (from 0) brings units hop·k … hop·(k + 1) − 1."""

    hop: int
    units: int  # of one block

    def of(self, chunk: int) -> int:
        """The block in which a chunk ends."""
        return (self.hop * (chunk + 1) - 1) // self.units

    def fewest_chunks(self) -> int:
        """Chunks that fill three blocks: the last can then be compared with the second."""
        return -(-3 * self.units // self.hop)

    def means(self, costs: Sequence[float]) -> list[float]:
        """Mean cost of the chunks of every whole block."""
        whole = self.hop * len(costs) // self.units
        return [float(np.mean([c for k, c in enumerate(costs) if self.of(k) == block])) for block in range(whole)]

    def growth(self, costs: Sequence[float]) -> float:
        """Mean chunk cost over the last whole block against the second.

        Raises:
            SettingError: there are fewer than three blocks.
        """
        means = self.means(costs)
        if len(means) < 3:
            raise SettingError(f"{len(costs)} chunks fill {len(means)} blocks", f"use {self.fewest_chunks()} or more")
        return means[-1] / means[1]


@dataclass(frozen=True)
class Fit:
    """A line through the mean chunk cost of every block from the second on.

    Attributes:
        first, last: what the line says of the second and of the last block, seconds per chunk.
        slope: seconds per chunk and chunk.
        verdict: "constant", "growing" or "shrinking".
    """

    first: float
    last: float
    slope: float
    verdict: str


def fit(costs: Sequence[float], blocks: Blocks) -> Fit:
    """Does a chunk late in an answer cost what an early one costs? Whole blocks are compared, as cost has a period."""
    means = np.asarray(blocks.means(costs)[1:])
    index = np.arange(len(means))
    per_block, first = np.polyfit(index, means, 1)
    last = first + per_block * index[-1]
    change = (last - first) / means.mean()
    verdict = "constant" if abs(change) <= STEADY else "growing" if change > 0 else "shrinking"
    return Fit(float(first), float(last), float(per_block * blocks.hop / blocks.units), verdict)


def as_record(figures: Summary | Starvation | Fit) -> dict[str, float | str]:
    """For JSON."""
    return asdict(figures)
