"""Which frames of a turn lie where in the solver's caches: finished blocks that are kept, and the one being worked on.

Attention does not mind the order of its keys, so a finished block never moves: when the caches are full, the place of
the oldest block is used again. Only what a mask says about each place tells whose frames are there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EMPTY = -1


class BlockWindow:
    """Places of a cache, each as long as a block.

    Args:
        block: frames per block.
        kept: finished blocks that stay visible; older ones are dropped.
    """

    def __init__(self, block: int, kept: int) -> None:
        self.block = block
        self.kept = kept
        self._owners: list[int] = []  # number of the block in each place, or EMPTY
        self._place = 0  # of the first unfinished block
        self._start = self._stop = 0  # frames being worked on

    @property
    def capacity(self) -> int:
        """Cache positions needed so far."""
        return len(self._owners) * self.block

    def place(self, start: int, stop: int) -> int:
        """Find room for the frames from `start`, where the first unfinished block begins, to `stop`.

        Returns:
            Index of the first frame in the caches.
        """
        first, needed = start // self.block, -(-(stop - start) // self.block)
        oldest = max(first - self.kept, 0)
        owners = [owner if oldest <= owner < first else EMPTY for owner in self._owners]
        place = next(i for i in range(len(owners) + 1) if all(owner == EMPTY for owner in owners[i : i + needed]))
        owners += [EMPTY] * (place + needed - len(owners))
        owners[place : place + needed] = range(first, first + needed)
        self._owners, self._place, self._start, self._stop = owners, place, start, stop
        return place * self.block

    @property
    def used(self) -> int:
        """Cache positions up to the last frame that is visible."""
        last = max(place for place, owner in enumerate(self._owners) if owner != EMPTY)
        unfilled = self._owners[last] * self.block + self.block - self._stop  # of the last block
        return (last + 1) * self.block - max(unfilled, 0)

    def mask(self) -> NDArray[np.bool_]:
        """(1, 1, stop − start, used): frame i sees its own block and the kept ones before it (spec §8.1)."""
        places = np.arange(self.used)
        owners = np.asarray(self._owners)[places // self.block]
        frames = owners * self.block + places % self.block
        own = np.arange(self._start, self._stop) // self.block
        there = (owners != EMPTY) & (frames < self._stop)
        mask: NDArray[np.bool_] = there[None, :] & (owners[None, :] <= own[:, None])
        return mask[None, None]
