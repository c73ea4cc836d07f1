"""The mel spectrogram of plots and of comparisons by eye."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
MEL_BINS = 80
WINDOW = 0.04  # seconds of one spectrum
HOP = 0.01  # seconds between two
DYNAMIC_RANGE = 70.0  # dB shown


def mel_spectrogram(pcm: Floats, sample_rate: int) -> Floats:
    """(MEL_BINS, frames) decibels below the loudest, frame i centred at i · HOP seconds, Hann window."""
    size, hop = round(WINDOW * sample_rate), round(HOP * sample_rate)
    padded = np.pad(pcm, size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.square(np.abs(np.fft.rfft(frames, axis=1)))
    mel = mel_filters(power.shape[1], sample_rate) @ power.T
    decibels = 10 * np.log10(np.maximum(mel, 1e-12))
    below: Floats = np.maximum(decibels - decibels.max(), -DYNAMIC_RANGE).astype(np.float32)
    return below


def mel_filters(spectrum: int, sample_rate: int) -> NDArray[np.float64]:
    """(MEL_BINS, spectrum) triangles evenly spaced in HTK mels up to half the sample rate, each of sum one."""
    edges = _hertz(np.linspace(0, to_mel(sample_rate / 2), MEL_BINS + 2))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.linspace(0, sample_rate / 2, spectrum)
    triangles: NDArray[np.float64] = np.maximum(
        0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    )
    triangles /= np.maximum(triangles.sum(axis=1, keepdims=True), 1e-9)  # a narrow one may lie between two bins
    return triangles


def to_mel(hertz: float) -> float:
    """A frequency on the HTK mel scale."""
    return float(2595 * np.log10(1 + hertz / 700))


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    hertz: NDArray[np.float64] = 700 * (10 ** (mel / 2595) - 1)
    return hertz
