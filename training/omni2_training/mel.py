"""The mel spectrogram between flow and vocoder: 24 kHz samples go in, normalised log-mel frames at 50 Hz come out.

The released decoder uses the plain logarithm. This model's flow and vocoder agree on one scale of their own: each bin
minus `CENTRE`, over `SPREAD`, so that the flow's noise and what it becomes are of one size.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 24_000
HOP = 480
WINDOW = 1920
BINS = 80
TOP_HZ = 8000.0
FLOOR = 1e-5  # smallest magnitude
CENTRE, SPREAD = -5.0, 3.0  # of the logarithms, about as the teacher speaks


def _to_mel(hz: float) -> float:
    """Slaney's scale: linear up to 1 kHz, logarithmic above."""
    return hz * 3 / 200 if hz < 1000 else 15 + math.log(hz / 1000) * 27 / math.log(6.4)


def _to_hz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))


@cache
def filters(bins: int, fft: int, rate: int, top: float) -> Tensor:
    """Triangles of unit area, (bins, fft / 2 + 1) float32."""
    edges = _to_hz(torch.linspace(0, _to_mel(top), bins + 2, dtype=torch.float64))
    hz = torch.linspace(0, rate / 2, fft // 2 + 1, dtype=torch.float64)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = torch.minimum((hz - low) / (centre - low), (high - hz) / (high - centre)).clamp_min(0)
    return (triangles * 2 / (high - low)).float()


def magnitude(wave: Tensor, fft: int, hop: int) -> Tensor:
    """Magnitudes of (B, n) samples, frame f centred on sample (f + 1/2) hop: (B, fft / 2 + 1, n / hop)."""
    padded = F.pad(wave[:, None], ((fft - hop) // 2, (fft - hop + 1) // 2), mode="reflect")[:, 0]
    window = torch.hann_window(fft, device=wave.device)
    spectrum = torch.stft(padded, fft, hop, window=window, center=False, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()


def log_mel(wave: Tensor) -> Tensor:
    """(B, n) float32 samples, n a multiple of `HOP` above two windows → (B, `BINS`, n / HOP), normalised."""
    mel = filters(BINS, WINDOW, SAMPLE_RATE, TOP_HZ).to(wave.device) @ magnitude(wave, WINDOW, HOP)
    return (mel.clamp_min(FLOOR).log() - CENTRE) / SPREAD
