"""Arrays of samples → mono float32."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omni2_engine.errors import AudioError

Floats = NDArray[np.float32]

RATES = range(1_000, 768_001)  # Hz; outside of it a header is damaged rather than a recording unusual
LEAST = 0.1  # seconds: what breaks off or is damaged before is no recording
DAMAGED = "%s is damaged after %.1f s and heard up to there: %s"  # a warning that readers log
MOST_CHANNELS = 64  # in an array: more means that its axes are swapped


class Recording(NamedTuple):
    """Mono sound.

    Attributes:
        samples: (n,) float32; a reader that was given a limit stops at it.
        rate: Hz.
        seconds: how long the whole recording is; infinite where it is longer than `samples` and does not say by how
            much.
    """

    samples: Floats
    rate: int
    seconds: float


def check_rate(rate: int) -> None:
    """Refuse a sample rate outside `RATES`.

    Raises:
        AudioError: it is.
    """
    if rate not in RATES:
        raise AudioError(f"the sample rate is {rate} Hz", f"use audio of {RATES[0]} to {RATES[-1]} Hz")


def scaled(samples: NDArray[Any]) -> Floats:
    """Samples of any usual type as float32 in ±1, (n,) or (n, channels).

    Raises:
        AudioError: another shape or type.
    """
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MOST_CHANNELS):
        raise AudioError(f"audio samples have shape {samples.shape}", "pass (samples,) or (samples, channels)")
    kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which is refused in words
            return samples.astype(np.float32)
    if kind == "i" and bits in (8, 16, 32):
        return (samples / 2.0 ** (bits - 1)).astype(np.float32)
    if kind == "u" and bits == 8:  # the one unsigned format of WAV files, its silence is 128
        return ((samples - 128.0) / 128.0).astype(np.float32)
    raise AudioError(f"audio samples are of type {samples.dtype}", "pass float32, int16 or int32 samples")


def mono(samples: Floats) -> Floats:
    """The mean of the channels: (n,) or (n, channels) → (n,)."""
    if samples.ndim == 1:
        return samples
    with np.errstate(invalid="ignore"):  # infinities of both signs make NaN, which is refused in words
        mean: Floats = samples.mean(axis=1, dtype=np.float64).astype(np.float32)
    return mean
