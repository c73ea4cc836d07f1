"""Where the frames of a turn lie in the solver's caches: finished blocks that are kept, and the block at work.

The result of attention does not depend on the order of its keys, so a finished block never moves. When the caches are
full, the slot of the oldest block is used again. The mask says which block lies in each slot.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EMPTY = -1


class BlockWindow:
    """Slots of a cache, each as long as a block.

    Args:
        block: frames per block.
        kept: finished blocks that stay visible; older ones are dropped.
    """

    def __init__(self, block: int, kept: int) -> None:
        self.block = block
        self.kept = kept
        self._blocks: list[int] = []  # number of the block in each slot, or EMPTY
        self._start = self._stop = 0  # frames being worked on

    @property
    def capacity(self) -> int:
        """Cache positions needed so far."""
        return len(self._blocks) * self.block

    def allocate(self, start: int, stop: int) -> int:
        """Find room for the frames from `start`, where the first unfinished block begins, to `stop`.

        Returns:
            Index of the first frame in the caches.
        """
        first, needed = start // self.block, -(-(stop - start) // self.block)
        oldest = max(first - self.kept, 0)
        blocks = [block if oldest <= block < first else EMPTY for block in self._blocks]
        slot = next(i for i in range(len(blocks) + 1) if all(block == EMPTY for block in blocks[i : i + needed]))
        blocks += [EMPTY] * (slot + needed - len(blocks))
        blocks[slot : slot + needed] = range(first, first + needed)
        self._blocks, self._start, self._stop = blocks, start, stop
        return slot * self.block

    @property
    def used(self) -> int:
        """Cache positions up to the last frame that is visible."""
        last = max(slot for slot, block in enumerate(self._blocks) if block != EMPTY)
        unfilled = self._blocks[last] * self.block + self.block - self._stop  # of the last block
        return (last + 1) * self.block - max(unfilled, 0)

    def mask(self) -> NDArray[np.bool_]:
        """(1, 1, stop − start, used): frame i sees its own block and the kept ones before it (spec §8.1)."""
        positions = np.arange(self.used)
        blocks = np.asarray(self._blocks)[positions // self.block]
        frames = blocks * self.block + positions % self.block
        own = np.arange(self._start, self._stop) // self.block
        there = (blocks != EMPTY) & (frames < self._stop)
        mask: NDArray[np.bool_] = there[None, :] & (blocks[None, :] <= own[:, None])
        return mask[None, None]


def block_mask(start: int, stop: int, block: int) -> NDArray[np.bool_]:
    """(1, 1, stop − start, stop): position i sees every position of its own block and of those before (spec §8.1)."""
    ends = (np.arange(start, stop) // block + 1) * block
    return (np.arange(stop)[None, :] < ends[:, None])[None, None]
