"""Tables mapped from an engine directory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from omni2_engine.model.tables import EmbeddingTable


def mapping_flags(path: Path) -> list[str]:
    """What the kernel keeps of a file's mapping in this process."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(path)):
            return next(flags for flags in lines if flags.startswith("VmFlags")).split()[1:]
    raise AssertionError(f"{path} is not mapped")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_rows_are_read_without_those_around_them(tmp_path: Path) -> None:
    rows = np.arange(40, dtype=np.float16).reshape(10, 4)
    np.save(tmp_path / "embed.npy", rows)
    table = EmbeddingTable(tmp_path / "embed.npy")
    assert "rr" in mapping_flags(tmp_path / "embed.npy")  # random reads: no read-ahead
    assert np.array_equal(table([3, 0, 3]), rows[[3, 0, 3]].astype(np.float32))
