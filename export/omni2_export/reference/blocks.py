"""What the flow's encoder and its estimator share: the block-causal attention mask (spec §8)."""

from __future__ import annotations

import torch
from torch import Tensor


def block_causal_mask(length: int, block: int, device: torch.device) -> Tensor:
    """(length, length) bool, true where query i may see key j: every position up to the end of i's own block."""
    number = torch.arange(length, device=device) // block
    return number[None, :] <= number[:, None]
