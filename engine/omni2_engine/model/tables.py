"""Tables mapped from the engine directory: token embeddings and the flow's noise. What is read of them takes memory."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine.errors import EngineDirectoryError

Floats = NDArray[np.float32]


def map_table(path: Path) -> NDArray[np.generic]:
    """Map an `.npy` file read-only.

    Raises:
        EngineDirectoryError: it is missing or damaged.
    """
    try:
        table: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EngineDirectoryError(f"{path} cannot be read: {error}", "build the engine again") from None
    return table


def _expect_single_rows(table: NDArray[np.generic]) -> None:
    """Have the system read a mapped table page by page, where it can: read-ahead would bring in all of it."""
    mapping = getattr(table, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)


class EmbeddingTable:
    """Token embeddings, stored as the checkpoint had them: float32, float16, or bfloat16 kept as uint16.

    Args:
        path: `.npy` of shape (vocab, hidden).
    """

    def __init__(self, path: Path) -> None:
        self._rows = map_table(path)
        _expect_single_rows(self._rows)
        self.hidden = int(self._rows.shape[1])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def stored(self) -> NDArray[Any]:
        """(vocab, hidden), mapped; bfloat16 as uint16."""
        return self._rows

    def __call__(self, ids: Sequence[int] | NDArray[np.int64]) -> Floats:
        """Rows of the table.

        Args:
            ids: token ids, each below the vocabulary's size.

        Returns:
            (len(ids), hidden) float32.
        """
        rows = self._rows[np.asarray(ids, np.int64)]
        if rows.dtype == np.uint16:  # bfloat16 is the upper half of a float32
            return (rows.astype(np.uint32) << 16).view(np.float32)
        return rows.astype(np.float32)
