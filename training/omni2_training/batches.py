"""Batches of utterances: crops of one length, or whole ones of about the same length."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from omni2_training.features import Utterance


def crops(
    utterances: list[Utterance], names: tuple[str, ...], frames: int, batch: int, rng: np.random.Generator
) -> list[Tensor]:
    """Random crops, utterances drawn in proportion to their length.

    Args:
        names: of frame-wise fields of `Utterance`.
        frames: of a crop, even; shorter utterances are filled up with their last frame.

    Returns:
        For every name (batch, frames, …), floats as float32, integers as int64.
    """
    lengths = np.array([len(u.mel) for u in utterances], np.float64)
    chosen = rng.choice(len(utterances), batch, p=lengths / lengths.sum())
    starts = [2 * int(rng.integers(0, max(1, (len(utterances[i].mel) - frames) // 2 + 1))) for i in chosen]
    out = []
    for name in names:
        rows = []
        for i, start in zip(chosen, starts, strict=True):
            row = getattr(utterances[i], name)[start : start + frames]
            rows.append(np.concatenate([row, np.repeat(row[-1:], frames - len(row), axis=0)]))
        out.append(as_tensor(np.stack(rows)))
    return out


def alike(lengths: list[int], batch: int, rng: np.random.Generator) -> list[int]:
    """`batch` indices of about the same length: one drawn at random, the others from its neighbours in length."""
    order = np.argsort(lengths, kind="stable")
    centre = int(rng.integers(len(order)))
    reach = 2 * batch
    low = max(0, min(centre - reach // 2, len(order) - reach))
    window = order[low : low + reach]
    return [int(i) for i in rng.choice(window, min(batch, len(window)), replace=False)]


def padded(rows: list[np.ndarray], value: float = 0) -> Tensor:
    """Rows of different length as one tensor, filled up at their ends."""
    longest = max(len(row) for row in rows)
    out = np.full((len(rows), longest, *rows[0].shape[1:]), value, rows[0].dtype)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return as_tensor(out)


def as_tensor(array: np.ndarray) -> Tensor:
    """Floats as float32, integers as int64."""
    return torch.from_numpy(array.astype(np.int64 if array.dtype.kind in "iu" else np.float32))
