"""Memory for caches: as long as they may get, taken from the system only as they fill, given back when they are gone.

The C library's allocator does neither for arrays of a few megabytes: once it has freed some, it hands out their memory
again and sets all of it to zero, so that a second session would hold every byte its caches could ever need.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
ALIGNMENT = 64  # bytes, a cache line
PRIVATE = {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}


def zeros(shapes: Mapping[str, Sequence[int]]) -> dict[str, Floats]:
    """Arrays of zeros, all in one mapping of their own.

    Args:
        shapes: name → shape.

    Returns:
        name → float32 array, C-contiguous.
    """
    sizes = {name: 4 * math.prod(shape) for name, shape in shapes.items()}
    places, total = {}, 0
    for name, size in sizes.items():
        places[name] = total
        total += -(-size // ALIGNMENT) * ALIGNMENT
    memory = mmap.mmap(-1, max(total, 1), **PRIVATE)  # lives as long as an array over it does
    return {
        name: np.frombuffer(memory, np.float32, sizes[name] // 4, places[name]).reshape(shape)
        for name, shape in shapes.items()
    }
