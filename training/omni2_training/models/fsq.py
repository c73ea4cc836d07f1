"""Finite scalar quantisation with three levels, and tables whose rows are sums over a unit's ternary digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 3


def quantise(x: Tensor) -> Tensor:
    """(…, digits) reals → values of −1, 0, 1, gradients passed straight through a tanh."""
    bounded = torch.tanh(x)
    return bounded + (bounded.round() - bounded).detach()


def to_units(values: Tensor) -> Tensor:
    """(…, digits) of −1, 0, 1 → (…) unit ids; the first digit counts least."""
    digits = values.round().long() + 1
    return (digits * LEVELS ** torch.arange(values.shape[-1], device=values.device)).sum(-1)


def to_digits(units: Tensor, digits: int) -> Tensor:
    """(…) unit ids → (…, digits) of 0, 1, 2."""
    return units[..., None] // LEVELS ** torch.arange(digits, device=units.device) % LEVELS


class UnitTable(nn.Module):
    """A table (3^digits, width) learnt as a sum of one row per digit and a small row of its own.

    Units that were never seen get sensible rows, and those seen once learn from their neighbours. `table` is what is
    exported.

    Args:
        digits: of a unit.
        width: of a row.
        scale: standard deviation of a row at the start.
    """

    def __init__(self, digits: int, width: int, scale: float) -> None:
        super().__init__()
        self.digits = digits
        self.parts = nn.Parameter(torch.randn(digits, LEVELS, width) * scale / digits**0.5)
        self.own = nn.Parameter(torch.zeros(LEVELS**digits, width))
        every = to_digits(torch.arange(LEVELS**digits), digits)
        self.register_buffer("index", every + LEVELS * torch.arange(digits), persistent=False)

    def table(self) -> Tensor:
        """(3^digits, width)."""
        one_hot = torch.zeros(len(self.own), self.digits * LEVELS, device=self.own.device).scatter_(1, self.index, 1.0)
        return one_hot @ self.parts.flatten(0, 1) + self.own

    def forward(self, units: Tensor) -> Tensor:
        """(…) ids → (…, width)."""
        return self.table()[units]
