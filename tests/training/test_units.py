"""Ternary units, factorised tables, and an answer laid out in rounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omni2_export.reference.vocoder import Snake
from omni2_training.models.fsq import UnitTable, quantise, to_digits, to_units
from omni2_training.models.snake import FastSnake
from omni2_training.models.speech_lm import IGNORED, SEP, layout


def test_quantised_values_are_ternary_and_let_gradients_through() -> None:
    x = torch.linspace(-4, 4, 101, requires_grad=True)
    values = quantise(x)
    assert set(values.detach().round(decimals=5).tolist()) == {-1.0, 0.0, 1.0}
    values.sum().backward()
    assert x.grad is not None and torch.allclose(x.grad, 1 - x.detach().tanh() ** 2, atol=1e-5)


def test_units_and_digits_are_inverse() -> None:
    units = torch.arange(3**5)
    assert torch.equal(to_units(to_digits(units, 5).float() - 1), units)


def test_exported_table_is_what_was_trained() -> None:
    torch.manual_seed(0)
    table = UnitTable(3, 8, 1.0)
    with torch.no_grad():
        table.own.normal_()
    units = torch.tensor([[0, 5], [26, 13]])
    digits = to_digits(units, 3)
    expected = sum(table.parts[d, digits[..., d]] for d in range(3)) + table.own[units]
    assert torch.allclose(table(units), expected, atol=1e-6)
    assert torch.equal(table.table()[units], table(units))


def test_fast_snake_and_its_derivatives() -> None:
    torch.manual_seed(0)
    plain, fast = Snake(3).double(), FastSnake(3).double()
    with torch.no_grad():
        plain.alpha.copy_(torch.tensor([0.3, 1.0, 2.5]))
        fast.alpha.copy_(plain.alpha)
    x = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(fast(x), plain(x), atol=1e-7)
    assert torch.autograd.gradcheck(
        lambda x, a: FastSnake.forward(_with(fast, a), x), (x, fast.alpha.detach().clone().requires_grad_())
    )


class _with:
    """Stands in for a module whose `alpha` is given."""

    def __init__(self, module: FastSnake, alpha: torch.Tensor) -> None:
        self.alpha = alpha


@pytest.mark.parametrize(("tokens", "units"), [(7, 30), (1, 4), (6, 25), (3, 0), (9, 12)])
def test_layout_reads_and_writes_in_rounds(tokens: int, units: int) -> None:
    given = np.arange(100, 100 + units, dtype=np.int16)
    laid = layout(tokens, given, read=3, write=10, every=2187)
    assert laid.text[laid.text >= 0].tolist() == list(range(tokens))
    assert laid.units[laid.units >= 0].tolist() == given.tolist()
    wanted = laid.targets[laid.targets != IGNORED]
    assert wanted.tolist() == [*given.tolist(), 2187]
    # Each unit is predicted right before it is fed, and the end of speech at the very end.
    for position in np.flatnonzero(laid.units >= 0):
        assert laid.targets[position - 1] == laid.units[position]
    assert laid.targets[-1] == 2187
    # The text is all read before `<sep>`, and a round that is not the last has ten units at most.
    [sep] = np.flatnonzero(laid.units == SEP)
    assert np.all(np.flatnonzero(laid.text >= 0) < sep)
    rounds = -(-tokens // 3)
    assert np.count_nonzero(laid.units[:sep] >= 0) == min(units, 10 * (rounds - 1))
