"""Speech tokenizer: mel frames at 50 Hz go in, ternary units at 25 Hz come out, and from them phonemes and the mel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from omni2_engine.model.config import Frozen
from omni2_training.models.fsq import quantise, to_units

RATIO = 2  # mel frames of a unit


class TokenizerConfig(Frozen):
    """Dimensions of the tokenizer."""

    digits: int = Field(gt=0, description="ternary digits of a unit: 3^digits units")
    width: int = Field(gt=0)
    blocks: int = Field(gt=0, description="residual blocks of the encoder, and of the decoder")
    kernel: int = 5


class Block(nn.Module):
    """LayerNorm → convolution → GELU → 1×1 convolution, beside the identity."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        y = self.conv(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.out(F.gelu(y))


@dataclass(frozen=True)
class Decoded:
    """What the units say, frame by frame."""

    phones: Tensor  # (B, T, phones) logits
    mel: Tensor  # (B, T, mel)
    values: Tensor  # (B, T / 2, digits) of −1, 0, 1


class UnitTokenizer(nn.Module):
    """Encoder, quantiser and the decoder that it is trained by."""

    def __init__(self, config: TokenizerConfig, mel: int, phones: int) -> None:
        super().__init__()
        width = config.width
        self.enter = nn.Linear(mel, width)
        self.encoder = nn.Sequential(*(Block(width, config.kernel) for _ in range(config.blocks)))
        self.down = nn.Conv1d(width, width, 2 * RATIO, stride=RATIO, padding=RATIO // 2)
        self.to_values = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.digits))
        self.from_values = nn.Linear(config.digits, width)
        self.up = nn.ConvTranspose1d(width, width, 2 * RATIO, stride=RATIO, padding=RATIO // 2)
        self.decoder = nn.Sequential(*(Block(width, config.kernel) for _ in range(config.blocks)))
        self.leave = nn.LayerNorm(width)
        self.to_phones, self.to_mel = nn.Linear(width, phones), nn.Linear(width, mel)

    def encode(self, mel: Tensor) -> Tensor:
        """(B, T, mel), T even → (B, T / 2, digits) before quantisation."""
        x = self.encoder(self.enter(mel))
        return self.to_values(self.down(x.transpose(1, 2)).transpose(1, 2))

    def forward(self, mel: Tensor) -> Decoded:
        """(B, T, mel), T even."""
        values = quantise(self.encode(mel))
        x = self.up(self.from_values(values).transpose(1, 2)).transpose(1, 2)
        x = self.leave(self.decoder(x))
        return Decoded(self.to_phones(x), self.to_mel(x), values)

    @torch.inference_mode()
    def units(self, mel: Tensor) -> Tensor:
        """(B, T, mel) → (B, T / 2) unit ids."""
        return to_units(quantise(self.encode(mel)))
