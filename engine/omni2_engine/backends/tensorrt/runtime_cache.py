"""Kernels that TensorRT-RTX compiled for an engine's plans, kept in one file beside the plans, by stage."""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

log = logging.getLogger("omni2_engine.backends")


def read_kernels(path: Path) -> dict[str, bytes]:
    """The kernels kept, by stage; none if there is no such file, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {stage: stored[stage].tobytes() for stage in stored.files}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        log.info("%s cannot be read (%s), and is made anew", path, str(error))
        return {}


def write_kernels(path: Path, kernels: Mapping[str, bytes]) -> None:
    """Keep kernels, by stage. If the engine cannot be written to, the next start is slower."""
    content = io.BytesIO()
    arrays = {stage: np.frombuffer(compiled, np.uint8) for stage, compiled in kernels.items()}
    np.savez(content, **arrays)  # type: ignore[arg-type]
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content.getbuffer())
        os.replace(temporary, path)  # a reader finds the old file or the new one, whole
    except OSError as error:
        log.info("%s cannot be written: %s", path, str(error))
