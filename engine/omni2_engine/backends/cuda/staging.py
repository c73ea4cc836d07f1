"""Small arrays on their way to the device and back: packed side by side, so that one copy carries all of a call's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine._core import CudaDevice, CudaStream, DeviceMemory, PinnedMemory

Array = NDArray[Any]
Specs = Mapping[str, tuple[Sequence[int], np.dtype[Any]]]  # name → (shape, dtype)
ALIGNMENT = 256  # bytes, at which TensorRT wants its bindings to begin
LEAST = 1 << 16  # bytes of a block at first


class Block:
    """Arrays in device memory that belong to one call at a time: laid out anew as their shapes change.

    Args:
        device: whose memory.

    Attributes:
        addresses: of the arrays laid out, by name. They change with the layout, and only with it.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._memory: DeviceMemory | None = None
        self.addresses: dict[str, int] = {}
        self.used = 0

    @property
    def address(self) -> int:
        """Of the block."""
        assert self._memory is not None
        return self._memory.address

    def lay_out(self, specs: Specs) -> None:
        """Place arrays; no call on those there were may be under way.

        Raises:
            CapacityError: the device has no room for them.
        """
        places, self.used = place(specs)
        if self._memory is None or self._memory.nbytes < self.used:
            self._grow(max(self.used, 2 * (self._memory.nbytes if self._memory else 0), LEAST))
        self.addresses = {name: self.address + offset for name, offset in places.items()}

    def _grow(self, nbytes: int) -> None:
        self._memory = self._device.allocate(nbytes)


class Exchange(Block):
    """A block with its counterpart in pinned memory, to send or to fetch all arrays at once.

    Attributes:
        arrays: of the host, by name.
    """

    def __init__(self, device: CudaDevice) -> None:
        super().__init__(device)
        self._pinned: PinnedMemory | None = None
        self.arrays: dict[str, Array] = {}

    def lay_out(self, specs: Specs) -> None:
        """Place arrays, here and there; see `Block.lay_out`."""
        super().lay_out(specs)
        self.arrays = _views(self._host, specs)

    def fill(self, arrays: Mapping[str, Array]) -> None:
        """Take the host's values, in the pinned half.

        Raises:
            ValueError: one is of another dtype, which a copy would change without a word.
        """
        for name, array in arrays.items():
            place = self.arrays[name]
            if array.dtype != place.dtype:
                raise ValueError(f"{name} is {array.dtype} and should be {place.dtype}")
            place[...] = array

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
    """Zeros in one piece of pinned memory, which lives as long as one of them."""
    memory = device.pin(place(specs)[1]).array
    memory[:] = 0
    return _views(memory, specs)


def place(specs: Specs) -> tuple[dict[str, int], int]:
    """Where arrays lie in one piece of memory, and how long it is, bytes; each begins at a multiple of `ALIGNMENT`."""
    places, total = {}, 0
    for name, (shape, dtype) in specs.items():
        places[name] = total
        total += -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
    return places, total


def _views(memory: NDArray[np.uint8], specs: Specs) -> dict[str, Array]:
    views, places = {}, place(specs)[0]
    for name, (shape, dtype) in specs.items():
        stop = places[name] + math.prod(shape) * dtype.itemsize
        views[name] = memory[places[name] : stop].view(dtype).reshape(shape)
    return views
