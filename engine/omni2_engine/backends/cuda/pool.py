"""Device memory that is used again: freeing it would make all streams wait for each other."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress

from omni2_engine._core import CudaDevice, CudaStream, DeviceMemory
from omni2_engine.errors import BackendError, CapacityError


class MemoryPool:
    """Memory for work on one stream.

    The next user of a piece enqueues its work behind that of the user before. Memory is freed only after the stream has
    run what was enqueued.

    Args:
        device: whose memory.
        stream: on which it is used.
    """

    def __init__(self, device: CudaDevice, stream: CudaStream) -> None:
        self._device = device
        self._stream = stream
        self._idle: defaultdict[int, list[DeviceMemory]] = defaultdict(list)  # by size

    def take(self, nbytes: int) -> Lease:
        """A free piece of memory; it comes back when the lease is collected.

        Raises:
            CapacityError: the device has not enough memory, idle pieces of the pool included.
        """
        if idle := self._idle[nbytes]:
            return Lease(self, idle.pop())
        try:
            return Lease(self, self._device.allocate(nbytes))
        except CapacityError:
            self._empty()  # of other sizes: perhaps there is room once they are gone
            return Lease(self, self._device.allocate(nbytes))

    def take_back(self, memory: DeviceMemory) -> None:
        """Take a piece back; the stream may still have work on it to run."""
        self._idle[memory.nbytes].append(memory)

    def _empty(self) -> None:
        with suppress(BackendError):  # a device that is lost has given up what was enqueued
            self._stream.synchronize()
        self._idle.clear()

    def __del__(self) -> None:
        self._empty()


class Lease:
    """Memory of a pool, while this object is referenced.

    Args:
        pool: it goes back to it.
        memory: the piece.
    """

    def __init__(self, pool: MemoryPool, memory: DeviceMemory) -> None:
        self.address = memory.address
        self._pool, self._memory = pool, memory

    def __del__(self) -> None:
        self._pool.take_back(self._memory)
