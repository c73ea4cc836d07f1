"""Where matrices are multiplied in bfloat16, and where in float32 within that."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def bfloat16(wanted: bool | None = None) -> torch.autocast:
    """A context in which matrices are multiplied in bfloat16.

    Args:
        wanted: whether they are; None where the processor has instructions for it. Without them bfloat16 takes twice as
            long as float32. Where torch is too old to say, it is taken to have none.
    """
    has = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    native = bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))
    return torch.autocast("cpu", torch.bfloat16, enabled=native if wanted is None else wanted)


def float32() -> torch.autocast:
    """A context in which nothing is multiplied in bfloat16."""
    return torch.autocast("cpu", enabled=False)


class Float32Conv(nn.Conv1d):
    """A convolution that stays in float32 inside `bfloat16` too."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T) → (B, out, T) float32."""
        with float32():
            return super().forward(x.float())
