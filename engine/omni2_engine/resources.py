"""Memory and processors that this process may use: of the machine's, what its control groups (containers) allow."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil

from omni2_engine import cgroups


def available_memory(root: Path = cgroups.ROOT) -> int:
    """Bytes of main memory that this process can still get without others being swapped out.

    Args:
        root: where `proc` and `sys` are, for tests.
    """
    machine: int = psutil.virtual_memory().available
    return min([machine, *cgroups.free_memory(root)])


def total_memory(root: Path = cgroups.ROOT) -> int:
    """Bytes of main memory that this process could have if nothing else ran; `root` as `available_memory`."""
    machine: int = psutil.virtual_memory().total
    return min([machine, *cgroups.memory_limits(root)])


def processors(root: Path = cgroups.ROOT) -> int:
    """Processors that this process may use, at least 1; part of one counts as one. `root` as `available_memory`."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS and Windows have none
    allowed = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, cgroups.cpu_quotas(root))]))
