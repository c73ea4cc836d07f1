"""Band-limited resampling by a Hann-windowed sinc, as the original resamples its voice prompts (spec §7)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WIDTH = 6  # zero crossings on each side of the filter
ROLLOFF = 0.99  # cut-off as a share of the lower Nyquist frequency
OUTPUTS_AT_ONCE = 1 << 16  # bounds the memory of gathered input samples


def resample(audio: Floats, rate: int, new_rate: int) -> Floats:
    """Resample as torchaudio.functional.resample does by default.

    Only the taps within the filter's reach are computed, once per output phase: any pair of rates is cheap.

    Args:
        audio: (n,) float32 at `rate` Hz.
        rate, new_rate: positive, in Hz.

    Returns:
        (⌈n · new_rate / rate⌉,) float32.
    """
    common = math.gcd(rate, new_rate)
    step, phases = rate // common, new_rate // common  # `step` samples in make `phases` samples out
    if step == phases:
        return audio
    first, taps = _filters(step, phases)
    width = taps.shape[1]
    padded = np.pad(audio, width + step)
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    resampled = np.empty(-(-phases * len(audio) // step), np.float32)
    for start in range(0, len(resampled), OUTPUTS_AT_ONCE):
        block, phase = np.divmod(np.arange(start, min(start + OUTPUTS_AT_ONCE, len(resampled))), phases)
        positions = block * step + first[phase] + width + step
        resampled[start : start + len(phase)] = np.einsum("nt,nt->n", windows[positions], taps[phase])
    return resampled


def _filters(step: int, phases: int) -> tuple[NDArray[np.int64], Floats]:
    """Per output phase the first input sample its filter touches (phases,), and the filter's taps (phases, width)."""
    cutoff = min(step, phases) * ROLLOFF
    reach = math.ceil(WIDTH * step / cutoff)  # input samples on each side
    centres = np.arange(phases) * step / phases  # in input samples
    first = np.floor(centres).astype(np.int64) - reach
    samples = first[:, None] + np.arange(2 * reach + 2)
    crossings = np.clip((samples - centres[:, None]) / step * cutoff, -WIDTH, WIDTH)
    window = np.square(np.cos(crossings * np.pi / WIDTH / 2))
    return first, (np.sinc(crossings) * window * cutoff / step).astype(np.float32)
