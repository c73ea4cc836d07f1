"""Device memory that is used again: giving it back to the driver would make every stream wait for every other."""

from __future__ import annotations

from collections import defaultdict

from omni2_engine._core import CudaDevice, DeviceMemory
from omni2_engine.errors import CapacityError


class MemoryPool:
    """Memory for what follows each other on one stream: who gets it next enqueues behind who had it before.

    Args:
        device: whose memory.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._idle: defaultdict[int, list[DeviceMemory]] = defaultdict(list)  # by size

    def take(self, nbytes: int) -> Lease:
        """Memory that nobody has; it comes back when the lease is collected.

        Raises:
            CapacityError: the device has not so much left, what lies idle here included.
        """
        idle = self._idle[nbytes]
        if idle:
            return Lease(idle.pop(), idle)
        try:
            return Lease(self._device.allocate(nbytes), idle)
        except CapacityError:
            for memories in self._idle.values():  # of other sizes: perhaps there is room once they are gone
                memories.clear()
            return Lease(self._device.allocate(nbytes), idle)


class Lease:
    """Memory of a pool, for as long as somebody holds this.

    Args:
        memory: that is lent.
        idle: where it goes back to.
    """

    def __init__(self, memory: DeviceMemory, idle: list[DeviceMemory]) -> None:
        self.address = memory.address
        self._memory, self._idle = memory, idle

    def __del__(self) -> None:
        self._idle.append(self._memory)
