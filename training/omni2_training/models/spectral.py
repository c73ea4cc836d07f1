"""How far one waveform is from another: magnitudes at several resolutions, and the mel."""

from __future__ import annotations

from torch import Tensor

from omni2_training.mel import log_mel, magnitude

RESOLUTIONS = ((128, 32), (256, 64), (512, 128), (1024, 256), (2048, 512))  # window and hop, samples
QUIETEST = 1e-4  # magnitude below which nothing is heard


def spectral_losses(made: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Losses of (B, n) samples against (B, n): "stft" (convergence and log-magnitude), "mel" (mean distance)."""
    total = made.new_zeros(())
    for window, hop in RESOLUTIONS:
        a, b = magnitude(made, window, hop), magnitude(true, window, hop)
        total = total + (a - b).norm() / b.norm().clamp_min(1e-3)
        total = total + (a.clamp_min(QUIETEST).log() - b.clamp_min(QUIETEST).log()).abs().mean()
    return {"stft": total / len(RESOLUTIONS), "mel": (log_mel(made) - log_mel(true)).abs().mean()}
