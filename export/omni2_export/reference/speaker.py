"""Voice prompt to speaker vector: resampling, Kaldi filter banks, and the checkpoint's own CAM++ network (spec §7)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 16_000  # Hz, of the filter banks
MEL_BINS = 80
FRAME = 400  # samples, 25 ms
SHIFT = 160  # samples, 10 ms
FFT = 512
LOW_HZ, HIGH_HZ = 20.0, 8000.0
PREEMPHASIS = 0.97
POVEY_POWER = 0.85  # a Hann window to this power
LOG_FLOOR = 1.1920928955078125e-07  # float32 epsilon

SINC_WIDTH = 6  # zero crossings on each side of the resampling filter
SINC_ROLLOFF = 0.99  # its cut-off as a share of the lower Nyquist frequency


def resample(audio: Tensor, rate: int, new_rate: int) -> Tensor:
    """Band-limited resampling by a Hann-windowed sinc, one filter per output phase (spec §7).

    Args:
        audio: (n,) float32 at `rate` Hz.

    Returns:
        (⌈n · new_rate / rate⌉,) float32.
    """
    common = math.gcd(rate, new_rate)
    step, phases = rate // common, new_rate // common  # `step` samples in make `phases` samples out
    if step == phases:
        return audio
    cutoff = min(step, phases) * SINC_ROLLOFF
    reach = math.ceil(SINC_WIDTH * step / cutoff)  # samples the filter extends beyond its block on each side
    taps = torch.arange(-reach, reach + step, dtype=torch.float64) / step
    offset = taps[None] - torch.arange(phases, dtype=torch.float64)[:, None] / phases  # (phases, taps) time to the tap
    crossings = (offset * cutoff).clamp(-SINC_WIDTH, SINC_WIDTH)
    window = torch.cos(crossings * math.pi / SINC_WIDTH / 2) ** 2
    kernels = (torch.sinc(crossings) * window * cutoff / step).float()
    padded = F.pad(audio[None, None], (reach, reach + step))
    blocks = F.conv1d(padded, kernels[:, None], stride=step)  # (1, phases, blocks)
    return blocks[0].T.reshape(-1)[: math.ceil(phases * audio.shape[0] / step)]


def _kaldi_mel(hz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hz / 700.0)


def kaldi_filters() -> Tensor:
    """Triangles on Kaldi's mel scale, not normalised, (MEL_BINS, FFT/2 + 1) float32; the Nyquist bin takes no part."""
    low, high = _kaldi_mel(torch.tensor([LOW_HZ, HIGH_HZ], dtype=torch.float64))
    width = (high - low) / (MEL_BINS + 1)
    left = low + torch.arange(MEL_BINS, dtype=torch.float64)[:, None] * width
    mel = _kaldi_mel(torch.arange(FFT // 2, dtype=torch.float64) * SAMPLE_RATE / FFT)
    rising, falling = (mel - left) / width, (left + 2 * width - mel) / width
    return F.pad(torch.minimum(rising, falling).clamp_min(0.0), (0, 1)).float()


def fbank(audio: Tensor) -> Tensor:
    """Kaldi log filter banks, each bin's mean over time subtracted (spec §7).

    Args:
        audio: (n,) float32 in [−1, 1] at 16 kHz, n ≥ 400.

    Returns:
        (1 + (n − 400) // 160, 80) float32.
    """
    frames = audio.unfold(0, FRAME, SHIFT)
    frames = frames - frames.mean(1, keepdim=True)
    previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    window = torch.hann_window(FRAME, periodic=False) ** POVEY_POWER
    power = torch.fft.rfft((frames - PREEMPHASIS * previous) * window, n=FFT).abs() ** 2
    banks = (power @ kaldi_filters().T).clamp_min(LOG_FLOOR).log()
    return banks - banks.mean(0)


def speaker_vector(campplus: Path, audio: Tensor) -> Tensor:
    """Speaker vector of a voice prompt.

    Args:
        campplus: the checkpoint's `campplus.onnx`.
        audio: (n,) float32 in [−1, 1] at 16 kHz.

    Returns:
        (1, speaker) float32, not normalised.
    """
    import onnxruntime

    network = onnxruntime.InferenceSession(str(campplus), providers=["CPUExecutionProvider"])
    output = network.run(None, {network.get_inputs()[0].name: fbank(audio)[None].numpy()})[0]
    return torch.from_numpy(np.asarray(output, np.float32).reshape(1, -1))
