"""How the flow's equation is solved: when its velocity is computed, and how far each of them moves the mel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from omni2_engine.model.config import EULER_STEPS

Floats = NDArray[np.float32]


class SolverRule(StrEnum):
    """Methods over the original's time schedule that compute one velocity a step.

    EULER: Euler's method, the original's (spec §8.2).
    AB2: the Adams–Bashforth method of second order, for steps of unequal length (Hairer, Nørsett, Wanner, Solving
        Ordinary Differential Equations I, §III.5): the velocity is extrapolated to the middle of the step.
    DAMPED: between them, with a small share of that extrapolation. Guidance makes the equation stiff, and all of it
        overshoots: docs/less_work.md.
    """

    EULER = "euler"
    AB2 = "ab2"
    DAMPED = "damped"


EXTRAPOLATED = {
    SolverRule.EULER: 0.0,
    SolverRule.AB2: 1.0,
    SolverRule.DAMPED: 0.15,
}  # share of what Adams–Bashforth adds to Euler


@dataclass(frozen=True)
class FlowSolver:
    """The steps from noise, t = 0, to mel, t = 1.

    Args:
        steps: velocities that are computed, from 1 to `EULER_STEPS`, the original's.
        rule: see `SolverRule`.
    """

    steps: int = EULER_STEPS
    rule: SolverRule = SolverRule.EULER

    def times(self) -> Floats:
        """(steps + 1) float32: t_k = 1 − cos(πk / 2·steps) (spec §8.2)."""
        points = range(self.steps + 1)
        return np.asarray([1.0 - math.cos(0.5 * math.pi * k / self.steps) for k in points], np.float32)

    def moves(self) -> Iterator[Floats]:
        """(2) float32 for every step: how far its own velocity moves the mel, and how far the one before does.

        With h the step's length, h' the one before's and θ the share that is extrapolated: h·(1 + θh/2h'), −h·θh/2h'.
        """
        before: np.float32 | None = None
        for length in self._lengths():
            share = EXTRAPOLATED[self.rule] / 2 * length / before if before is not None else 0.0
            yield np.array([length * (1 + share), -length * share], np.float32)
            before = length

    def _lengths(self) -> Iterator[np.float32]:
        """Length of every step; times add up in float32 as upstream's do (spec §8.2)."""
        times = self.times()
        now: np.float32 = times[0]
        for until in times[1:]:
            length: np.float32 = until - now
            yield length
            now = now + length
