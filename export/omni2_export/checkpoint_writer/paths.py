"""Where a checkpoint's two directories lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CheckpointPaths:
    """Where `omni2_export.checkpoint.open_checkpoint` finds the two directories."""

    model: Path
    decoder: Path

    @classmethod
    def below(cls, path: Path) -> CheckpointPaths:
        """The two directories `write_checkpoint` makes below `path`."""
        return cls(path / "omni2", path / "decoder")
