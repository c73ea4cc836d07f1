"""Starts worker processes one at a time and takes back what they measured, with the memory they took."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from omni2_bench.common.machine import memory
from omni2_bench.common.watch import watching
from omni2_engine.errors import Omni2Error

THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOOK_EVERY = 0.1  # seconds, at a worker's memory
KILLED = -getattr(signal, "SIGKILL", 9)  # as a process's exit code; Windows has no signals
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # would bind NumPy's library to another processor's kernels


def run_worker(function: str, request: dict[str, Any], threads: int) -> dict[str, Any]:
    """Call one function in a fresh process.

    Args:
        function: "module:name" of what is called; it returns a dictionary for JSON.
        request: its arguments, for JSON.
        threads: that its libraries may use.

    Returns:
        What the function returns, with `memory`: highest `RssAnon` and `VmHWM` in bytes.

    Raises:
        Omni2Error: the function failed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in SLOWING}
    environment |= dict.fromkeys(THREAD_SETTINGS, str(threads))
    command, pipe = [sys.executable, "-m", "omni2_bench.common.worker"], subprocess.PIPE
    highest: dict[str, int] = {}
    with (
        subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as worker,
        watching(lambda: _raise_to(highest, memory(worker.pid)), LOOK_EVERY),
    ):
        try:
            output, errors = worker.communicate(json.dumps({"function": function, "request": request}) + "\n")
        except BaseException:
            worker.kill()
            raise
    if worker.returncode:
        raise _failure(function, worker.returncode, errors)
    answer = json.loads(output)
    if "problem" in answer:
        raise Omni2Error(answer["problem"], answer["remedy"])
    result: dict[str, Any] = answer["result"]
    return {**result, "memory": highest}


def _raise_to(highest: dict[str, int], found: Mapping[str, int]) -> None:
    """Keep the larger figure of each name."""
    for name, size in found.items():
        highest[name] = max(highest.get(name, 0), size)


def _failure(function: str, code: int, errors: str) -> Omni2Error:
    if code == KILLED:
        return Omni2Error(f"the process of {function} was killed", "this machine's memory may be too small for it")
    last = errors.strip().splitlines()[-1:] or ["it said nothing"]
    return Omni2Error(f"the process of {function} failed with exit code {code}: {last[0]}")
