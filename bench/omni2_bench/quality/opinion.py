"""Mean opinion scores of speech as DNSMOS predicts them, where its package is installed."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import soxr
from numpy.typing import NDArray

HEARING = 16_000  # Hz


def installed() -> bool:
    """Whether `speechmos` and what it needs are there."""
    return all(find_spec(name) is not None for name in ("speechmos", "librosa", "pandas"))


def overall(pcm: NDArray[np.float32], rate: int) -> float:
    """DNSMOS OVRL of (n,) samples, 1 to 5."""
    from speechmos import dnsmos

    audio = np.clip(soxr.resample(pcm, rate, HEARING), -1, 1).astype(np.float32)
    return float(dnsmos.run(audio, HEARING)["ovrl_mos"])
