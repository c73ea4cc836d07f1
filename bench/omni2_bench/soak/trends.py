"""Whether what a server holds grows with time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOWS = 10  # stretches of equal length, whose medians are compared: single samples hang together
SHORTEST = 60.0  # seconds of a stretch: conversations last about as long, and memory goes up and down with them
SURE = 2.31  # standard errors beyond which a slope is no chance: Student's t at 97.5 %, 8 degrees of freedom
NOTABLE = 0.02  # share of the level that may be gained over the whole time


@dataclass(frozen=True)
class Trend:
    """A line through the medians of equal stretches of time.

    Args:
        level: median of all samples.
        per_hour: slope.
        error: standard error of the slope.
        hours: that the line covers.
    """

    level: float
    per_hour: float
    error: float
    hours: float

    @property
    def grows(self) -> bool:
        """It rises for certain, and by more than a fiftieth of its level in all."""
        rises = self.per_hour - SURE * self.error > 0
        return rises and self.per_hour * self.hours > NOTABLE * self.level


def trend(seconds: Sequence[float], values: Sequence[float]) -> Trend | None:
    """Fit a line by least squares; None with fewer than two samples a stretch, or stretches too short for a verdict.

    Args:
        seconds: when each sample was taken, rising.
        values: the samples.
    """
    if len(values) < 2 * WINDOWS or seconds[-1] - seconds[0] < WINDOWS * SHORTEST:
        return None
    hours = np.asarray(seconds, np.float64) / 3600
    stretches = np.array_split(np.asarray(values, np.float64), WINDOWS)
    middles = np.array([part.mean() for part in np.array_split(hours, WINDOWS)])
    medians = np.array([np.median(part) for part in stretches])
    slope, at_zero = np.polyfit(middles, medians, 1)
    left = medians - (slope * middles + at_zero)
    spread = np.square(middles - middles.mean()).sum()
    error = np.sqrt(np.square(left).sum() / (WINDOWS - 2) / spread)
    return Trend(float(np.median(values)), float(slope), float(error), float(hours[-1] - hours[0]))
