"""Random tensors drawn piece by piece: a scale, and a few rows or columns that a rule sets.

The numbers come from the engine's own generator, so they are the same bits on every machine.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine import _core

Floats = NDArray[np.float32]
Edit = Callable[[Floats, int], None]  # (rows, number of the first) → changed in place
PIECE = 1 << 22  # values drawn at once: what bounds memory
STREAM = 101  # of the generator; the engine's own streams are small numbers (`omni2_engine.sampling.Stream`)


@dataclass(frozen=True)
class Rule:
    """How one tensor is made: `scale` · N(0, 1) + `shift`, then `edit`.

    A tensor whose edit needs all of it at once sets `whole`; it must be small.
    """

    scale: float = 0.0
    shift: float = 0.0
    edit: Edit | None = None
    whole: bool = False


def draw(name: str, shape: tuple[int, ...], rule: Rule, seed: int) -> Iterator[Floats]:
    """Pieces of a tensor, consecutive rows of axis 0, float32.

    Args:
        name: of the tensor: with the seed it decides what is drawn.
    """
    width = int(np.prod(shape[1:], dtype=np.int64))
    rows = shape[0] if rule.whole else max(1, PIECE // max(width, 1))
    for step, start in enumerate(range(0, shape[0], rows)):
        piece = np.empty((min(rows, shape[0] - start), *shape[1:]), np.float32)
        if rule.scale:
            _core.normal(piece, seed, STREAM, zlib.crc32(name.encode()), step)
            piece *= np.float32(rule.scale)
            piece += np.float32(rule.shift)
        else:
            piece[...] = rule.shift
        if rule.edit is not None:
            rule.edit(piece, start)
        yield piece


def set_rows(*changes: tuple[int, Callable[[Floats], None]]) -> Edit:
    """An edit of single rows: (row, function that changes it in place)."""

    def edit(rows: Floats, start: int) -> None:
        for row, change in changes:
            if start <= row < start + len(rows):
                change(rows[row - start])

    return edit


def chain(*edits: Edit) -> Edit:
    """Several edits, one after another."""

    def edit(rows: Floats, start: int) -> None:
        for one in edits:
            one(rows, start)

    return edit
