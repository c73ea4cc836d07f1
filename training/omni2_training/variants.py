"""Other unit sequences of the same speech: a little faster or slower, cut at other moments, through a little noise.

A frame near one of the quantiser's edges falls to this unit or that by chance. A model that has seen one fall only
learns it by heart; several of them are worth as much as more speech.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STRETCH = 0.1  # largest logarithm of the change of speed
NOISE = 0.05  # standard deviation of what is added to the normalised mel


def variant(mel: NDArray[np.float16], rng: np.random.Generator) -> NDArray[np.float32]:
    """A variant of (F, bins) mel frames, (F', bins) with F' even."""
    frames = mel.astype(np.float32)
    speed = float(np.exp(rng.uniform(-STRETCH, STRETCH)))
    length = max(2, 2 * round(len(frames) / speed / 2))
    at = np.clip((np.arange(length) + rng.uniform(-1.0, 1.0)) * speed, 0, len(frames) - 1)
    before = np.minimum(at.astype(int), max(0, len(frames) - 2))
    share = (at - before)[:, None].astype(np.float32)
    after = np.minimum(before + 1, len(frames) - 1)
    moved = (1 - share) * frames[before] + share * frames[after]
    return moved + NOISE * rng.standard_normal(moved.shape, np.float32)
