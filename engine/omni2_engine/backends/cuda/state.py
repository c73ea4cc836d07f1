"""State of a graph in the device's memory: caches and contexts that calls update in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.cuda.array import DeviceArray, row_copies
from omni2_engine.backends.cuda.staging import Specs, offsets_of
from omni2_engine.backends.cuda.stream import StageStream


class DeviceState:
    """Arrays in one piece of the stream's memory, zero at first; see `StateMemory`.

    Copies and fills are enqueued on the stream, in order with the calls that use the arrays.

    Args:
        stream: of the graph whose state it is.
        specs: name → (shape, dtype).

    Raises:
        CapacityError: the device has not enough memory.
    """

    def __init__(self, stream: StageStream, specs: Specs) -> None:
        self._stream = stream
        offsets, total = offsets_of(specs)
        with stream.lock:  # while another thread records, the pool cannot free what is idle
            owner = stream.pool.take(total)
            begin = owner.address
            stream.cuda.fill(begin, 0, total)
        self.arrays = {
            name: DeviceArray.whole(begin + offsets[name], shape, dtype, owner)
            for name, (shape, dtype) in specs.items()
        }

    def copy(self, to: DeviceArray, source: DeviceArray | NDArray[Any]) -> None:
        """Copy a part of this or another state of the stream, or an array of the host; see `StateMemory.copy`."""
        with self._stream.lock:
            if isinstance(source, np.ndarray):
                if not to.contiguous or (to.shape, to.dtype) != (source.shape, source.dtype):
                    raise ValueError(f"{source.dtype} {source.shape} cannot be copied to {to.dtype} {to.shape}")
                self._stream.cuda.upload(to.address, np.ascontiguousarray(source))
                return
            for rows in row_copies(to, source):
                self._stream.cuda.copy_rows(
                    rows.to, rows.to_pitch, rows.source, rows.source_pitch, rows.width, rows.rows
                )

    def clear(self, part: DeviceArray) -> None:
        """Set a contiguous part to zero; see `StateMemory.clear`."""
        if not part.contiguous:
            raise ValueError("only a contiguous part can be cleared")
        with self._stream.lock:
            self._stream.cuda.fill(part.address, 0, part.nbytes)

    def give_back(self, part: DeviceArray) -> None:
        """Nothing: all memory goes back to the pool with its last view; see `StateMemory.give_back`."""
