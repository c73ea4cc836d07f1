"""Some rows of one weight: a head that scores some of the vocabulary alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omni2_export.checkpoint.tensors import Tensors


class ChosenRows:
    """A module's tensors, with some rows of one of them alone; see `Tensors`.

    Args:
        tensors: the module's.
        chosen: name of the tensor.
        rows: of it that are kept, ascending.
    """

    def __init__(self, tensors: Tensors, chosen: str, rows: Sequence[int]) -> None:
        self._tensors = tensors
        self._chosen = chosen
        self._rows = np.asarray(rows, np.int64)

    def names(self) -> list[str]:
        """See `Tensors`."""
        return self._tensors.names()

    def dtype(self, name: str) -> np.dtype:
        """See `Tensors`."""
        return self._tensors.dtype(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Tensors`."""
        shape = self._tensors.shape(name)
        return (len(self._rows), *shape[1:]) if name == self._chosen else shape

    def read(self, name: str) -> np.ndarray:
        """See `Tensors`."""
        return self.rows(name, 0, len(self._rows)) if name == self._chosen else self._tensors.read(name)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """See `Tensors`."""
        if name != self._chosen:
            return self._tensors.rows(name, start, stop)
        wanted = self._rows[start:stop]
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        return np.concatenate([self._tensors.rows(name, int(run[0]), int(run[-1]) + 1) for run in runs])
