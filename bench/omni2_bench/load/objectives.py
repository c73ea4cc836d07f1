"""What a service promises, and the highest rate at which it keeps it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omni2_engine.errors import SettingError

STEPS = 4  # bisections of the octave between the highest rate that kept the promise and the lowest that broke it
OCTAVES = 6  # above or below the first rate
BOUND = re.compile(r"\s*([a-z_0-9]+)\s*([<>])\s*([0-9.eE+-]+)\s*")


@dataclass(frozen=True)
class Objective:
    """A bound of a figure.

    Args:
        figure: a name of `Trial.figures`.
        above: whether the figure has to be above the bound; else below.
        bound: in the figure's unit.
    """

    figure: str
    above: bool
    bound: float

    def met(self, figures: Mapping[str, float]) -> bool:
        """Whether the figures keep it; a figure without any sample does not."""
        if self.figure not in figures:
            return False
        found = figures[self.figure]
        return found > self.bound if self.above else found < self.bound

    def __str__(self) -> str:
        return f"{self.figure}{'>' if self.above else '<'}{self.bound:g}"


def parse_objectives(text: str) -> list[Objective]:
    """Bounds such as "first_sound_p95<1.0,continuity>0.99".

    Raises:
        SettingError: one cannot be read.
    """
    found: list[Objective] = []
    for part in text.split(","):
        match = BOUND.fullmatch(part)
        try:
            if match is None:
                raise ValueError
            found.append(Objective(match[1], match[2] == ">", float(match[3])))
        except ValueError:
            use = "write bounds such as first_sound_p95<1.0,continuity>0.99"
            raise SettingError(f"{part!r} is no objective", use) from None
    return found


def highest_rate(kept: Callable[[float], bool], first: float) -> float:
    """The highest rate that keeps a promise: the octave in which it breaks is found, then bisected.

    Args:
        kept: makes a trial at a rate.
        first: rate to begin with.

    Returns:
        The highest rate tried that kept it; 0 if none did.
    """
    low = high = first
    if kept(first):
        for _ in range(OCTAVES):
            high = 2 * low
            if not kept(high):
                break
            low = high
        else:
            return low
    else:
        for _ in range(OCTAVES):
            low = high / 2
            if kept(low):
                break
            high = low
        else:
            return 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low
