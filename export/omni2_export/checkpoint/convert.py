"""`.pt` → `.safetensors` of the same keys and types, so that later builds need no torch."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from omni2_engine.errors import SettingError
from omni2_export.checkpoint.safetensors_file import write_safetensors
from omni2_export.checkpoint.torch_file import TorchFile


def convert(source: Path, target: Path | None = None) -> Path:
    """Write the tensors of a `.pt` file as `.safetensors`; a Whisper file's `dims` go into its metadata.

    Args:
        source: the `.pt` file.
        target: the file to write; the source's name with `.safetensors` by default.

    Returns:
        The file written; it is either whole or absent.

    Raises:
        CheckpointError: the source cannot be read.
        SettingError: the target cannot be written.
    """
    target = target or source.with_suffix(".safetensors")
    if target.suffix != ".safetensors":
        raise SettingError(f"{target} does not end in .safetensors", "choose such a name")
    if not target.parent.is_dir():
        raise SettingError(f"{target.parent} is not a directory", "create it first")
    tensors = TorchFile(source)
    size = sum(math.prod(tensors.shape(name)) * tensors.dtype(name).itemsize for name in tensors.names())
    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise SettingError(f"{target} takes {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free", "free disk space")
    write_safetensors(target, tensors, tensors.metadata)
    return target
