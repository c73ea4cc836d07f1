"""The vocoder's Snake with a derivative written by hand: one cosine forth, one sine back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from omni2_export.reference.vocoder import HiFT, Snake


class _Snake(torch.autograd.Function):
    """y = x + sin²(αx) / α = x + (1 − cos 2αx) / 2α for x (B, channels, T) and α (channels, 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        alpha = alpha.to(x.dtype)
        raised = 1 - torch.cos(x * (2 * alpha))
        ctx.save_for_backward(x, alpha, raised)
        return torch.addcmul(x, raised, 0.5 / alpha)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, alpha, raised = ctx.saved_tensors
        sine = torch.sin(x * (2 * alpha))
        # dy/dα = x sin(2αx) / α − sin²(αx) / α², whose second part is (1 − cos 2αx) / 2α².
        both = x * sine - raised * (0.5 / alpha)
        return torch.addcmul(grad, grad, sine), (grad * both).sum((0, 2), dtype=torch.float32)[:, None] / alpha


class FastSnake(Snake):
    """The same function and parameter."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T) → (B, channels, T)."""
        return _Snake.apply(x, self.alpha[:, None])


def with_fast_snakes(vocoder: HiFT) -> HiFT:
    """Exchange a vocoder's activations in place; names and weights stay the same."""
    for part in vocoder.modules():
        if isinstance(part, nn.ModuleList):
            for i, child in enumerate(part):
                if type(child) is Snake:
                    fast = FastSnake(len(child.alpha))
                    fast.alpha = child.alpha
                    part[i] = fast
    return vocoder
