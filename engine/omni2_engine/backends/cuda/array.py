"""Arrays in the device's memory: the host knows their addresses, shapes and strides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

Index = int | slice | tuple[int | slice, ...]


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A view of device memory.

    Args:
        address: of its first element.
        shape: like NumPy's.
        strides: bytes, like NumPy's.
        dtype: of an element; bfloat16 is kept as uint16.
        owner: of the memory, which lives as long as a view of it.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object

    @classmethod
    def whole(cls, address: int, shape: Sequence[int], dtype: np.dtype[Any], owner: object) -> DeviceArray:
        """A C-contiguous array."""
        return cls(address, tuple(shape), contiguous_strides(shape, dtype.itemsize), dtype, owner)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie side by side, in order."""
        return all(
            size == 1 or stride == straight
            for size, stride, straight in zip(
                self.shape, self.strides, contiguous_strides(self.shape, self.dtype.itemsize), strict=True
            )
        )

    def __getitem__(self, index: Index) -> DeviceArray:
        """A view: integers and slices without a step, as NumPy takes them.

        Raises:
            IndexError: it goes beyond the array.
        """
        parts = index if isinstance(index, tuple) else (index,)
        if len(parts) > len(self.shape):
            raise IndexError(f"{len(parts)} indices for an array of {len(self.shape)} axes")
        address, shape, strides = self.address, [], []
        for axis, size in enumerate(self.shape):
            part = parts[axis] if axis < len(parts) else slice(None)
            stride = self.strides[axis]
            if isinstance(part, slice):
                start, stop, step = part.indices(size)
                if step != 1:
                    raise IndexError("a view of device memory has no steps")
                shape.append(max(stop - start, 0))
                strides.append(stride)
            else:
                start = part + size if part < 0 else part
                if not 0 <= start < size:
                    raise IndexError(f"index {part} is out of bounds for an axis of {size}")
            address += start * stride
        return replace(self, address=address, shape=tuple(shape), strides=tuple(strides))


def contiguous_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Bytes from one element to the next along every axis of a C-contiguous array."""
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


@dataclass(frozen=True, slots=True)
class RowCopy:
    """Rows of `width` bytes, each `pitch` bytes behind the one before, as a device copies them in one go."""

    to: int
    to_pitch: int
    source: int
    source_pitch: int
    width: int
    rows: int


def row_copies(to: DeviceArray, source: DeviceArray) -> Iterator[RowCopy]:
    """The fewest copies of rows that make one array like another.

    Raises:
        ValueError: they differ in shape or dtype.
    """
    if to.shape != source.shape or to.dtype != source.dtype:
        raise ValueError(f"{source.dtype} {source.shape} does not fit into {to.dtype} {to.shape}")
    if to.nbytes == 0:
        return
    width, axes = to.dtype.itemsize, [*zip(to.shape, to.strides, source.strides, strict=True)]
    while axes and (axes[-1][0] == 1 or axes[-1][1:] == (width, width)):
        width *= axes.pop()[0]
    merged: list[tuple[int, int, int]] = []  # (size, stride there, stride here), the outermost first
    for size, *strides in axes:
        if size == 1:
            continue
        if merged and merged[-1][1:] == (size * strides[0], size * strides[1]):
            size *= merged.pop()[0]
        merged.append((size, strides[0], strides[1]))
    rows, to_pitch, source_pitch = merged.pop() if merged else (1, width, width)
    for index in product(*(range(size) for size, _, _ in merged)):
        to_offset = sum(i * axis[1] for i, axis in zip(index, merged, strict=True))
        source_offset = sum(i * axis[2] for i, axis in zip(index, merged, strict=True))
        yield RowCopy(to.address + to_offset, to_pitch, source.address + source_offset, source_pitch, width, rows)
