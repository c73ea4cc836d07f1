"""Golden arrays and the measure of an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

Arrays = dict[str, np.ndarray]


def golden(shared: Path, name: str) -> Arrays:
    with np.load(shared / "goldens" / f"{name}.npz") as arrays:
        return dict(arrays)


def error(actual: torch.Tensor, expected: np.ndarray) -> float:
    """Largest absolute difference of two arrays of one shape."""
    assert tuple(actual.shape) == expected.shape
    return float(np.abs(actual.detach().numpy().astype(np.float64) - expected).max())


def relative(actual: torch.Tensor, expected: np.ndarray) -> float:
    """Largest absolute difference as a share of the expected array's standard deviation."""
    return error(actual, expected) / float(expected.std())
