"""A ring in memory that the host and the device share: a kernel writes items, the host takes them when it wants to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import CudaDevice


class PinnedRing:
    """Items of one type in mapped memory; the writer keeps its own count and writes item n to place n modulo `size`.

    The host sees an item once the stream has passed the kernel that wrote it, and must have taken it before the writer
    comes round.

    Args:
        device: that writes.
        size: items there is room for.
        dtype: of an item.
    """

    def __init__(self, device: CudaDevice, size: int, dtype: np.dtype[Any]) -> None:
        memory = device.pin(size * dtype.itemsize)
        self.size = size
        self.address = memory.device_address
        self._items: NDArray[Any] = memory.array.view(dtype)
        self.taken = 0

    def take(self, count: int) -> NDArray[Any]:
        """The next items, (count,), copied.

        Raises:
            ValueError: more than the ring holds: the first would have been written over.
        """
        if count > self.size:
            raise ValueError(f"a ring of {self.size} cannot have kept {count} items")
        places = (self.taken + np.arange(count)) % self.size
        self.taken += count
        return self._items[places]

    def restart(self) -> None:
        """Begin at place 0 again, as the writer does."""
        self.taken = 0
