"""Loaded by Python itself in the processes of Ray: what tests do to a replica's device.

Of a replica with process id N, answers wait while the file `hold-N` is in the directory OMNI2_TEST_DEVICE, and the
device is lost while `lost-N` is.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any


def stand_in(directory: Path) -> None:
    """Put the stand-ins before ONNX Runtime."""
    from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
    from omni2_engine.errors import BackendError

    plain_session, plain_memory = OnnxRuntimeBackend.session, OnnxRuntimeBackend.free_memory

    class HeldSession:
        def __init__(self, session: Any) -> None:
            self._session = session

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

        def run(self, *arguments: Any) -> Any:
            wait()
            return self._session.run(*arguments)

        def run_with_iobinding(self, *arguments: Any) -> None:
            wait()
            self._session.run_with_iobinding(*arguments)

    def wait() -> None:
        while (directory / f"hold-{os.getpid()}").exists():
            time.sleep(0.01)

    def session(self: OnnxRuntimeBackend, *arguments: Any) -> Any:
        return HeldSession(plain_session(self, *arguments))

    def free_memory(self: OnnxRuntimeBackend) -> int:
        if (directory / f"lost-{os.getpid()}").exists():
            raise BackendError("the device is lost")
        return plain_memory(self)

    OnnxRuntimeBackend.session, OnnxRuntimeBackend.free_memory = session, free_memory  # type: ignore[assignment, method-assign]


if "OMNI2_TEST_DEVICE" in os.environ and any("default_worker" in argument for argument in sys.orig_argv):
    stand_in(Path(os.environ["OMNI2_TEST_DEVICE"]))
