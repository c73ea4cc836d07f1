"""Islands of float32 within bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def float32() -> torch.autocast:
    """A context in which nothing is multiplied in bfloat16."""
    return torch.autocast("cpu", enabled=False)


class Float32Conv(nn.Conv1d):
    """A convolution that stays in float32 wherever it stands."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T) → (B, out, T) float32."""
        with float32():
            return super().forward(x.float())
