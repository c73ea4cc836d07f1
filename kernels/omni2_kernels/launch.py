"""A kernel as the host sees it, and a launch of it: a name, a grid, and the bytes of every argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BANDWIDTH = 864e9  # bytes a second: an L40's memory, by its data sheet
THREADS = 256  # of every block

Sizes = Mapping[str, int]
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Parameter:
    """One argument of a kernel.

    Args:
        name: as in the source.
        type: as in the source, such as `int32_t`.
        dtype: of the value.
    """

    name: str
    type: str
    dtype: np.dtype[Any]

    def encode(self, value: object) -> bytes:
        """The argument's bytes, as the kernel reads them.

        Raises:
            TypeError: the value does not fit.
        """
        array = np.asarray(value)
        if array.shape != () or not self._takes(array):
            raise TypeError(f"{self.name} is {self.type}, not {value!r}")
        return array.astype(self.dtype).tobytes()

    def _takes(self, value: np.ndarray[Any, Any]) -> bool:
        if self.dtype.kind == "V":
            return bool(value.dtype == self.dtype)
        limits = np.iinfo(self.dtype)
        return value.dtype.kind in ("i", "u") and int(limits.min) <= int(value) <= int(limits.max)


@dataclass(frozen=True)
class Launch:
    """A kernel with all that `cuLaunchKernel` takes but the stream; none has dynamic shared memory.

    Args:
        kernel: its name.
        grid, block: blocks and threads in x, y, z.
        arguments: the bytes of each, in order.
    """

    kernel: str
    grid: Grid
    block: Grid
    arguments: tuple[bytes, ...]


@dataclass(frozen=True)
class Kernel:
    """One `extern "C" __global__` function.

    Args:
        name: of the function.
        source: its file in `cuda/`.
        parameters: in order.
        sizes: names of those the grid needs.
        grid: sizes → blocks.
        moved: sizes → bytes read and written.
        description: what it does and what memory it moves.
    """

    name: str
    source: str
    parameters: tuple[Parameter, ...]
    sizes: tuple[str, ...]
    grid: Callable[[Sizes], Grid]
    moved: Callable[[Sizes], int]
    description: str

    def floor(self, sizes: Sizes) -> float:
        """Seconds the bytes alone take at `BANDWIDTH`."""
        return self.moved(sizes) / BANDWIDTH

    def launch(self, sizes: Sizes, *arguments: object) -> Launch:
        """The kernel with its arguments.

        Args:
            sizes: those of `Kernel.sizes`, each at least 1.
            arguments: a value per parameter; structs as numpy records.

        Raises:
            TypeError: another number of arguments, or one that does not fit its parameter.
        """
        if len(arguments) != len(self.parameters):
            names = ", ".join(parameter.name for parameter in self.parameters)
            raise TypeError(f"{self.name} takes {names}: {len(arguments)} arguments are not enough or too many")
        encoded = (parameter.encode(value) for parameter, value in zip(self.parameters, arguments, strict=True))
        return Launch(self.name, self.grid(sizes), (THREADS, 1, 1), tuple(encoded))
