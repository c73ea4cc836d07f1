"""What is heard where two chunks meet: jumps of energy and spectrum, against the same place rendered offline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
FRAME = 0.020  # seconds on each side of a place
QUIET = 1e-3  # RMS added to both sides: steps within silence are not heard
QUIETEST = 1e-3  # share of the loudest bin below which a spectrum counts as empty


@dataclass(frozen=True)
class Jump:
    """The step at one place: level in dB, and RMS distance of the two spectra in dB."""

    energy: float
    spectrum: float


def jump(pcm: Floats, place: int, rate: int) -> Jump:
    """The step at sample `place` of (n,) samples, which has a frame of sound on both sides.

    Raises:
        ValueError: it has not.
    """
    length = round(FRAME * rate)
    before, after = pcm[place - length : place] if place >= length else pcm[:0], pcm[place : place + length]
    if len(before) != length or len(after) != length:
        raise ValueError(f"sample {place} of {len(pcm)} is too near the edge for frames of {length}")
    levels = [20 * np.log10(np.sqrt(np.mean(np.square(x, dtype=np.float64))) + QUIET) for x in (before, after)]
    window = np.hanning(length)
    spectra = [np.abs(np.fft.rfft(x * window)) for x in (before, after)]
    floor = QUIETEST * max(float(s.max()) for s in spectra) + 1e-9
    decibels = [20 * np.log10(s + floor) for s in spectra]
    return Jump(float(abs(levels[1] - levels[0])), float(np.sqrt(np.mean((decibels[1] - decibels[0]) ** 2))))


def seam_cost(streamed: Floats, offline: Floats, edges: list[int], rate: int) -> Jump | None:
    """How much larger the jumps at the edges of chunks are than at the same places offline, mean in dB.

    Args:
        streamed, offline: (n,) renderings of the same units.
        edges: samples at which chunks begin.

    Returns:
        None where no edge is far enough from both ends.
    """
    length = round(FRAME * rate)
    inside = [edge for edge in edges if length <= edge <= min(len(streamed), len(offline)) - length]
    if not inside:
        return None
    pairs = [(jump(streamed, edge, rate), jump(offline, edge, rate)) for edge in inside]
    return Jump(
        float(np.mean([a.energy - b.energy for a, b in pairs])),
        float(np.mean([a.spectrum - b.spectrum for a, b in pairs])),
    )
