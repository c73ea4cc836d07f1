"""Staging buffers: the small arrays of a call lie side by side, so that one copy takes all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import CudaDevice, CudaStream, DeviceMemory, PinnedMemory
from omni2_engine.settings.tuning import TRANSFER

Array = NDArray[Any]
Specs = Mapping[str, tuple[Sequence[int], np.dtype[Any]]]  # name → (shape, dtype)
ALIGNMENT = 256  # bytes: TensorRT requires it of bindings


class DeviceBuffer:
    """Arrays in device memory of one call at a time; laid out again when their shapes change.

    Args:
        device: whose memory.

    Attributes:
        addresses: of the arrays laid out, by name. They change with the layout only.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._memory: DeviceMemory | None = None
        self.addresses: dict[str, int] = {}
        self.used = 0

    @property
    def address(self) -> int:
        """Where the buffer begins."""
        assert self._memory is not None
        return self._memory.address

    def lay_out(self, specs: Specs) -> None:
        """Place arrays; no call that uses the ones before may still run.

        Raises:
            CapacityError: the device has no room for them.
        """
        offsets, self.used = offsets_of(specs)
        if self._memory is None or self._memory.nbytes < self.used:
            self._grow(max(self.used, 2 * (self._memory.nbytes if self._memory else 0), TRANSFER.least_staging))
        self.addresses = {name: self.address + offset for name, offset in offsets.items()}

    def _grow(self, nbytes: int) -> None:
        self._memory = self._device.allocate(nbytes)


class StagingBuffer(DeviceBuffer):
    """A device buffer with its counterpart in pinned memory, to send or fetch all arrays in one copy.

    Attributes:
        arrays: the ones in pinned memory, by name.
    """

    def __init__(self, device: CudaDevice) -> None:
        super().__init__(device)
        self._pinned: PinnedMemory | None = None
        self.arrays: dict[str, Array] = {}

    def lay_out(self, specs: Specs) -> None:
        """Place arrays, on the device and in pinned memory; see `DeviceBuffer.lay_out`."""
        super().lay_out(specs)
        self.arrays = _views(self._host, specs)

    def fill(self, arrays: Mapping[str, Array]) -> None:
        """Copy the values of a call into pinned memory.

        Raises:
            ValueError: one has another dtype, which a copy would convert silently.
        """
        for name, array in arrays.items():
            staged = self.arrays[name]
            if array.dtype != staged.dtype:
                raise ValueError(f"{name} is {array.dtype} and should be {staged.dtype}")
            staged[...] = array

    def send(self, stream: CudaStream) -> None:
        """Copy everything to the device."""
        if self.used:
            stream.upload(self.address, self._host[: self.used])

    def fetch(self, stream: CudaStream) -> None:
        """Copy everything from the device."""
        if self.used:
            stream.download(self._host[: self.used], self.address)

    @property
    def _host(self) -> NDArray[np.uint8]:
        assert self._pinned is not None
        return self._pinned.array

    def _grow(self, nbytes: int) -> None:
        super()._grow(nbytes)
        self._pinned = self._device.pin(nbytes)


def pinned_arrays(device: CudaDevice, specs: Specs) -> dict[str, Array]:
    """Arrays of zeros in one piece of pinned memory, which lives as long as one of the arrays."""
    memory = device.pin(offsets_of(specs)[1]).array
    memory[:] = 0
    return _views(memory, specs)


def offsets_of(specs: Specs) -> tuple[dict[str, int], int]:
    """Offset of every array in one piece of memory, and its length, bytes; offsets are multiples of `ALIGNMENT`."""
    offsets, total = {}, 0
    for name, (shape, dtype) in specs.items():
        offsets[name] = total
        total += -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
    return offsets, total


def _views(memory: NDArray[np.uint8], specs: Specs) -> dict[str, Array]:
    views, offsets = {}, offsets_of(specs)[0]
    for name, (shape, dtype) in specs.items():
        stop = offsets[name] + math.prod(shape) * dtype.itemsize
        views[name] = memory[offsets[name] : stop].view(dtype).reshape(shape)
    return views
