"""Named tensors, read one at a time: the interface every checkpoint file and every view of one offers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from omni2_engine.errors import CheckpointError

Float32 = npt.NDArray[np.float32]
PIECE = 1 << 20  # numbers checked at once, so that a large tensor costs no memory


class Tensors(Protocol):
    """Named tensors of one module; nothing is read before it is asked for."""

    def names(self) -> list[str]:
        """All names."""

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""

    def dtype(self, name: str) -> np.dtype[np.generic]:
        """The type it is stored in; bfloat16 is `ml_dtypes.bfloat16`."""

    def read(self, name: str) -> Float32:
        """The whole tensor as float32."""

    def rows(self, name: str, start: int, stop: int) -> Float32:
        """Rows [start, stop) of axis 0 as float32, without reading the rest."""


def to_float32(array: npt.NDArray[np.generic]) -> Float32:
    """An array as contiguous, aligned float32; without a copy if it is so already. What is beyond its range is inf."""
    with np.errstate(over="ignore"):
        return np.require(array, np.float32, ["C", "A"])


def finite(array: Float32, where: str) -> Float32:
    """The same array, found to hold neither NaN nor infinity.

    Args:
        array: contiguous float32.
        where: file and name of the tensor, for the error.

    Raises:
        CheckpointError: a value is not finite.
    """
    flat = array.reshape(-1)
    for start in range(0, flat.size, PIECE):
        piece = flat[start : start + PIECE]
        if not np.isfinite(piece).all():
            kind = "NaN" if np.isnan(piece).any() else "infinity"
            raise CheckpointError(
                f"{where} holds {kind}", "download the file again, or use weights of before the training diverged"
            )
    return array


class Arrays:
    """Tensors held in memory, e.g. a computed positional table."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._arrays = dict(arrays)

    def names(self) -> list[str]:
        return list(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._arrays[name].shape

    def dtype(self, name: str) -> np.dtype[np.generic]:
        return self._arrays[name].dtype

    def read(self, name: str) -> Float32:
        return to_float32(self._arrays[name])

    def rows(self, name: str, start: int, stop: int) -> Float32:
        return to_float32(self._arrays[name][start:stop])


class Selection:
    """Tensors of other readers under names of their own.

    Args:
        sources: name → (reader, the tensor's name there).
    """

    def __init__(self, sources: Mapping[str, tuple[Tensors, str]]) -> None:
        self._sources = dict(sources)

    def names(self) -> list[str]:
        return list(self._sources)

    def source(self, name: str) -> tuple[Tensors, str]:
        """Where a tensor comes from."""
        return self._sources[name]

    def shape(self, name: str) -> tuple[int, ...]:
        reader, original = self._sources[name]
        return reader.shape(original)

    def dtype(self, name: str) -> np.dtype[np.generic]:
        reader, original = self._sources[name]
        return reader.dtype(original)

    def read(self, name: str) -> Float32:
        reader, original = self._sources[name]
        return reader.read(original)

    def rows(self, name: str, start: int, stop: int) -> Float32:
        reader, original = self._sources[name]
        return reader.rows(original, start, stop)


def renamed(tensors: Tensors, rename: Callable[[str], str | None]) -> Selection:
    """Tensors under new names.

    Args:
        tensors: the reader.
        rename: old name → new name, None to leave the tensor out.

    Raises:
        CheckpointError: two tensors would get one name.
    """
    sources: dict[str, tuple[Tensors, str]] = {}
    for name in tensors.names():
        new = rename(name)
        if new is None:
            continue
        if new in sources:
            raise CheckpointError(
                f"`{name}` and `{sources[new][1]}` are two spellings of the same tensor", "remove one of them"
            )
        sources[new] = (tensors, name)
    return Selection(sources)


def under_prefix(tensors: Tensors, prefix: str) -> Selection:
    """The tensors whose names begin with `prefix`, without it."""
    return renamed(tensors, lambda name: name[len(prefix) :] if name.startswith(prefix) else None)


def overlaid(*layers: Tensors) -> Selection:
    """All layers' tensors together; where names meet, the earlier layer wins."""
    return Selection({name: (layer, name) for layer in reversed(layers) for name in layer.names()})


def agreed_dimension(tensors: Tensors, *places: tuple[str, int], default: int = 1) -> int:
    """The size most of several tensor axes agree on.

    A dimension usually shows in more than one tensor, so that one which is missing or mis-shaped is outvoted and can be
    named as such.

    Args:
        tensors: the reader.
        places: (name, axis) pairs that should all have this size; missing ones do not vote.
        default: the answer if none of them is there.
    """
    names = set(tensors.names())
    votes = Counter(
        tensors.shape(name)[axis] for name, axis in places if name in names and len(tensors.shape(name)) > axis
    )
    return votes.most_common(1)[0][0] if votes else default
