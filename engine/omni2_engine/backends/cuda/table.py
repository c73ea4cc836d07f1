"""Token embeddings in the device's memory, in the checkpoint's type."""

from __future__ import annotations

import numpy as np

from omni2_engine._core import CudaDevice, CudaStream
from omni2_engine.model.tables import EmbeddingTable
from omni2_engine.settings.tuning import TRANSFER
from omni2_kernels.decoding import ElementType, element_type


class DeviceTable:
    """A copy of an `EmbeddingTable`.

    Args:
        device: whose memory.
        stream: on which it is used.
        table: what to copy.

    Attributes:
        address: of its first row.
        rows, width: its shape.
        type: of an element, as the kernels name it.
        nbytes: bytes of the device's memory.

    Raises:
        CapacityError: the device has not enough memory.
    """

    def __init__(self, device: CudaDevice, stream: CudaStream, table: EmbeddingTable) -> None:
        stored = table.stored
        self.rows, self.width = (int(size) for size in stored.shape)
        self.type: ElementType = element_type(stored.dtype)
        self.nbytes: int = stored.nbytes
        self._memory = device.allocate(stored.nbytes)
        self.address = self._memory.address
        row = stored.itemsize * self.width
        step = max(TRANSFER.table_piece // row, 1)
        for first in range(0, self.rows, step):
            stream.upload(self.address + first * row, np.ascontiguousarray(stored[first : first + step]))
