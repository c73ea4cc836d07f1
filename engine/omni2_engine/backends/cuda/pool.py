"""Device memory that is used again: giving it back to the driver would make every stream wait for every other."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress

from omni2_engine._core import CudaDevice, CudaStream, DeviceMemory
from omni2_engine.errors import BackendError, CapacityError


class MemoryPool:
    """Memory for what follows each other on one stream: who gets it next enqueues behind who had it before. It is given
    back to the driver only when the stream has passed what was enqueued on it.

    Args:
        device: whose memory.
        stream: on which it is used.
    """

    def __init__(self, device: CudaDevice, stream: CudaStream) -> None:
        self._device = device
        self._stream = stream
        self._idle: defaultdict[int, list[DeviceMemory]] = defaultdict(list)  # by size

    def take(self, nbytes: int) -> Lease:
        """Memory that nobody has; it comes back when the lease is collected.

        Raises:
            CapacityError: the device has not so much left, what lies idle here included.
        """
        if idle := self._idle[nbytes]:
            return Lease(self, idle.pop())
        try:
            return Lease(self, self._device.allocate(nbytes))
        except CapacityError:
            self._empty()  # of other sizes: perhaps there is room once they are gone
            return Lease(self, self._device.allocate(nbytes))

    def take_back(self, memory: DeviceMemory) -> None:
        """Memory that its last holder has done with; the stream may not have passed it yet."""
        self._idle[memory.nbytes].append(memory)

    def _empty(self) -> None:
        with suppress(BackendError):  # a device that is lost has given up what was enqueued
            self._stream.synchronize()
        self._idle.clear()

    def __del__(self) -> None:
        self._empty()


class Lease:
    """Memory of a pool, for as long as somebody holds this.

    Args:
        pool: that it goes back to.
        memory: that is lent.
    """

    def __init__(self, pool: MemoryPool, memory: DeviceMemory) -> None:
        self.address = memory.address
        self._pool, self._memory = pool, memory

    def __del__(self) -> None:
        self._pool.take_back(self._memory)
