"""Memory of the host for caches: as long as they may get, taken from the system only as they fill, given back when they
are gone.

The C library's allocator does neither for arrays of a few megabytes: once it has freed some, it hands out their memory
again and sets all of it to zero, so that a second session would hold every byte its caches could ever need.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Array = NDArray[Any]
Specs = Mapping[str, tuple[Sequence[int], np.dtype[Any]]]  # name → (shape, dtype)
PRIVATE: dict[str, Any] = {}  # arguments of a mapping that is of this process alone
if sys.platform != "win32":
    PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
DISCARD: int | None = getattr(mmap, "MADV_DONTNEED", None)  # None: this system cannot take back a part


class Reservation:
    """Arrays of zeros, all in one mapping of their own, each at the beginning of a page; see `StateMemory`.

    Args:
        specs: name → (shape, dtype).

    Attributes:
        arrays: name → array, C-contiguous; the memory lives as long as one of them.
    """

    def __init__(self, specs: Specs) -> None:
        sizes = {name: math.prod(shape) * dtype.itemsize for name, (shape, dtype) in specs.items()}
        places, total = {}, 0
        for name, size in sizes.items():
            places[name] = total
            total += -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, max(total, 1), **PRIVATE)
        self._begin = np.frombuffer(self._memory, np.uint8, 1).__array_interface__["data"][0]
        self.arrays: dict[str, Array] = {
            name: np.frombuffer(self._memory, dtype, math.prod(shape), places[name]).reshape(shape)
            for name, (shape, dtype) in specs.items()
        }

    def copy(self, to: Array, source: Array) -> None:
        """Make a view like another; see `StateMemory.copy`."""
        to[...] = source

    def clear(self, part: Array) -> None:
        """Set a view to zero; see `StateMemory.clear`."""
        part[...] = 0

    def give_back(self, part: Array) -> None:
        """Return the pages that lie wholly in a contiguous part of one of the arrays to the system.

        What the part holds is undefined afterwards, but finite: zeros where the system discards pages at once, as Linux
        does; elsewhere perhaps what was there before.
        """
        if DISCARD is None or not hasattr(self._memory, "madvise"):
            return
        place = part.__array_interface__["data"][0] - self._begin
        first = -(-place // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (place + part.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._memory.madvise(DISCARD, first, last - first)


def zeros(shapes: Mapping[str, Sequence[int]]) -> dict[str, Floats]:
    """Arrays of zeros, all in one mapping of their own.

    Args:
        shapes: name → shape.

    Returns:
        name → float32 array, C-contiguous.
    """
    return Reservation({name: (shape, np.dtype(np.float32)) for name, shape in shapes.items()}).arrays
