"""Waveform to Whisper's log-mel spectrogram: 16 kHz samples of one window go in, (frames, mel bins) come out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from omni2_engine.model.config import WHISPER_FFT, WHISPER_HOP, WHISPER_SAMPLE_RATE, EncoderConfig

LOG_FLOOR = 1e-10  # smallest mel power, spec §2
DYNAMIC_RANGE = 8.0  # decades below the window's loudest point, spec §2

# Slaney's mel scale: linear up to 1 kHz, then 27 mels for each factor of 6.4 in frequency.
SLANEY_HZ_PER_MEL = 200.0 / 3.0
SLANEY_KNEE_HZ = 1000.0
SLANEY_KNEE_MEL = SLANEY_KNEE_HZ / SLANEY_HZ_PER_MEL
SLANEY_LOG_STEP = math.log(6.4) / 27.0


def _slaney_to_hz(mel: Tensor) -> Tensor:
    above = SLANEY_KNEE_HZ * torch.exp(SLANEY_LOG_STEP * (mel - SLANEY_KNEE_MEL))
    return torch.where(mel < SLANEY_KNEE_MEL, mel * SLANEY_HZ_PER_MEL, above)


def mel_filters(mel_bins: int) -> Tensor:
    """Slaney mel filters of unit area over 0–8 kHz, (mel_bins, fft/2 + 1) float32 (spec §2)."""
    nyquist = WHISPER_SAMPLE_RATE / 2
    top = SLANEY_KNEE_MEL + math.log(nyquist / SLANEY_KNEE_HZ) / SLANEY_LOG_STEP
    edges = _slaney_to_hz(torch.linspace(0.0, top, mel_bins + 2, dtype=torch.float64))  # (mel_bins + 2,) Hz
    bins = torch.linspace(0.0, nyquist, WHISPER_FFT // 2 + 1, dtype=torch.float64)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp_min(0.0)
    return (triangles * 2.0 / (high - low)).float()


def log_mel(audio: Tensor, config: EncoderConfig) -> Tensor:
    """Log-mel spectrogram of one window (spec §2).

    Args:
        audio: (n,) float32 in [−1, 1] at 16 kHz; padded with silence or cut to `config.samples`.
        config: gives the window's length and the number of mel bins.

    Returns:
        (config.frames, config.mel_bins) float32.
    """
    audio = F.pad(audio[: config.samples], (0, max(0, config.samples - audio.shape[0])))
    window = torch.hann_window(WHISPER_FFT, device=audio.device)
    spectrum = torch.stft(audio, WHISPER_FFT, WHISPER_HOP, window=window, return_complex=True)
    power = spectrum[:, :-1].abs() ** 2  # (fft/2 + 1, frames)
    mel = mel_filters(config.mel_bins).to(audio.device) @ power
    decades = mel.clamp_min(LOG_FLOOR).log10()
    decades = torch.maximum(decades, decades.max() - DYNAMIC_RANGE)
    return ((decades + 4.0) / 4.0).T.contiguous()
