"""Memory and processors that this process may use: of the machine's, what its control groups (containers) allow."""

from __future__ import annotations

import math
import os
from pathlib import Path

from omni2_engine.system import cgroups


def available_memory(root: Path = cgroups.ROOT) -> int:
    """Bytes of main memory that this process can still get without others being swapped out.

    Args:
        root: where `proc` and `sys` are, for tests.
    """
    return min([_machine_memory(root)[0], *cgroups.free_memory(root)])


def total_memory(root: Path = cgroups.ROOT) -> int:
    """Bytes of main memory that this process could have if nothing else ran; `root` as `available_memory`."""
    return min([_machine_memory(root)[1], *cgroups.memory_limits(root)])


def processors(root: Path = cgroups.ROOT) -> int:
    """Processors that this process may use, at least 1; part of one counts as one. `root` as `available_memory`."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS and Windows have none
    allowed = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, cgroups.cpu_quotas(root))]))


def _machine_memory(root: Path) -> tuple[int, int]:
    """(free, all) memory of the machine, bytes."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {name: int(size.split()[0]) * 1024 for name, size in (line.split(":", 1) for line in lines)}
        return sizes["MemAvailable"], sizes["MemTotal"]
    except (OSError, KeyError, ValueError):
        import psutil  # installed where the system is not Linux

        memory = psutil.virtual_memory()
        return int(memory.available), int(memory.total)
