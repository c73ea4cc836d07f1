"""Comparison of one golden file: what the file has is compared, what it lacks is passed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from omni2_export.verify.goldens import Golden
from omni2_export.verify.rows import Comparison


@dataclass(frozen=True)
class FileComparison:
    """Rows of one file; limits and stages as in `Comparison`."""

    golden: Golden
    comparison: Comparison

    def close(self, array: str, stages: Sequence[str], found: ArrayLike, **limit: float) -> None:
        """Compare numbers with the file's array of that name, if it has one."""
        if array in self.golden:
            self.comparison.close(self.golden.name, array, stages, found, self.golden[array], **limit)

    def same(self, array: str, stages: Sequence[str], found: Any) -> None:
        """Compare ids or text with the file's array of that name, if it has one."""
        if array in self.golden:
            self.comparison.same(self.golden.name, array, stages, found, self.golden[array])
