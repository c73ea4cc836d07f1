"""Work on waveforms at the end of the pipeline: the cross-fade between two vocoder calls, and packing to 16 bit."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PCM16_SCALE = 32767  # float 1.0; full scale is the same on both sides


@lru_cache(maxsize=8)
def fade_window(overlap: int) -> NDArray[np.float64]:
    """The symmetric Hamming window of 2·overlap samples: its first half fades in, its second half out (spec §10)."""
    window = np.hamming(2 * overlap)
    window.flags.writeable = False
    return window


def cross_fade(
    head: NDArray[np.float32], tail: NDArray[np.float32], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Fade from `tail`, the end of the last call's waveform, to `head`, the beginning of this one's (spec §10).

    The product is float64, stored as float32, as upstream does. The halves of the window add up to about 1.08, so the
    result can exceed ±1.

    Args:
        head, tail: (overlap,) float32.
        out: where the result goes; may be `head` itself. A new array if None.

    Returns:
        (overlap,) float32.
    """
    overlap = len(head)
    if tail.shape != head.shape:
        raise ValueError(f"cannot fade {tail.shape} into {head.shape}")
    window = fade_window(overlap)
    faded = head * window[:overlap] + tail * window[overlap:]
    if out is None:
        return faded.astype(np.float32)
    out[...] = faded
    return out


def pack_pcm16(pcm: NDArray[np.float32]) -> NDArray[np.int16]:
    """Float samples to 16-bit ones of the same shape: ±1 becomes ±32767, what is beyond saturates, NaN becomes 0."""
    finite = np.nan_to_num(pcm, nan=0.0, posinf=1.0, neginf=-1.0)
    packed: NDArray[np.int16] = np.rint(np.clip(finite, -1.0, 1.0) * np.float32(PCM16_SCALE)).astype(np.int16)
    return packed
