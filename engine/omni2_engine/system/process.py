"""The process an engine lives in: `os.fork()` copies its memory into a child, but none of its threads."""

from __future__ import annotations

import ctypes
import os
from weakref import WeakSet

from omni2_engine.errors import BackendError

_owned: WeakSet[object] = WeakSet()


def own(runtime: object) -> int:
    """Note that what an engine runs on belongs to this process. A forked child never destroys its copy: the destructors
    of ONNX Runtime, CUDA and the scheduler would wait there for threads that only the parent has.

    Returns:
        The id of this process, for `check_not_forked`.
    """
    _owned.add(runtime)
    return os.getpid()


def check_not_forked(owner: int) -> None:
    """Refuse to work in a forked child.

    Args:
        owner: id of the process that loaded the engine.

    Raises:
        BackendError: this is another process.
    """
    if os.getpid() != owner:
        raise BackendError(
            f"the engine was loaded by process {owner} and this is its forked child, which has none of its threads",
            "load the engine in the child, or start processes with multiprocessing's method 'spawn'",
        )


def _keep_forever() -> None:
    """Take a reference to everything of the parent's that is never given back."""
    for runtime in list(_owned):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))
    _owned.clear()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_keep_forever)
