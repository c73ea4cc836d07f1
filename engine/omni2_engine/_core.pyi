"""Philox4x32-10 random numbers and the samplers that use them: the C++ extension, built from cpp/.

A draw is named by `seed` (below 2^64) and `stream`, `turn`, `step` (each below 2^32). Every function raises ValueError
for an array of another dtype or layout and for a number out of its range; none keeps state, and all but `philox4x32`
run without the interpreter lock. Results are the same to the bit on every machine.
"""

from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

class NoCandidateError(ValueError):
    """No logit can be chosen: all are NaN or, for a draw, minus infinity."""

def philox4x32(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The generator itself: counter (4,), key (2,) → four random words (4,)."""

def uniform(
    out: NDArray[np.float32], seed: SupportsIndex, stream: SupportsIndex, turn: SupportsIndex, step: SupportsIndex
) -> None:
    """Fill `out` (any shape, C-contiguous, at most 2^34 values) with uniforms in the open interval (0, 1)."""

def normal(
    out: NDArray[np.float32], seed: SupportsIndex, stream: SupportsIndex, turn: SupportsIndex, step: SupportsIndex
) -> None:
    """Fill `out` (any shape, C-contiguous, at most 2^34 values) with standard normals."""

def argmax(logits: NDArray[np.float32]) -> int:
    """Id of the greatest of logits (V,), the first of equals; NaN never wins. All NaN raises NoCandidateError."""

def greedy(logits: NDArray[np.float32], generated: NDArray[np.int64], penalty: float) -> int:
    """`argmax` after the repetition penalty (spec §6), logits (V,) left as they are.

    Each id in `generated` (any length, repeats count once) has its logit divided by `penalty`, multiplied if negative.
    """

def sample(
    logits: NDArray[np.float32],
    generated: NDArray[np.int64],
    penalty: float,
    temperature: float,
    top_k: SupportsIndex,
    top_p: float,
    seed: SupportsIndex,
    stream: SupportsIndex,
    turn: SupportsIndex,
    step: SupportsIndex,
) -> int:
    """One draw from softmax(penalised logits / temperature), logits (V,) left as they are.

    `temperature` 0 is `greedy`. `top_k` keeps the logits not below the k-th greatest, ties included (0, or V and more:
    all); `top_p` in (0, 1] then keeps the fewest, likeliest first, that hold this share of what is left (1: all). NaN
    and minus infinity are never drawn; NoCandidateError where nothing else is.
    """
