"""The machine a benchmark ran on, and the memory one of its processes takes."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omni2_engine.system.resources import processors, total_memory

PACKAGES = ("omni2-engine", "onnxruntime", "torch", "numpy")
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "sve")


def describe(threads: int) -> dict[str, Any]:
    """Processor, memory, load and versions, for JSON."""
    processor = _processor()
    flags = (processor.get("flags") or processor.get("Features") or "").split()
    return {
        "processor": processor.get("model name") or platform.processor() or platform.machine(),
        "family": "/".join(processor.get(key, "?") for key in ("cpu family", "model")),
        "flags": [flag for flag in FLAGS if flag in flags],
        "processors": processors(),
        "threads": threads,
        "memory_bytes": total_memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "load": load(),
    }


def load() -> float:
    """Runnable processes, averaged over the last minute."""
    if hasattr(os, "getloadavg"):
        return float(os.getloadavg()[0])
    import psutil  # Windows has no such number; this counts it from now on

    return float(psutil.getloadavg()[0])


def memory(process: int | str = "self") -> dict[str, int]:
    """`RssAnon` and `VmHWM` of a process in bytes; empty where the system has no `/proc`, or the process is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "VmHWM") if name in fields}


def _processor() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
