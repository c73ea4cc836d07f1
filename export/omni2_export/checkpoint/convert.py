"""`.pt` → `.safetensors` of the same keys and types, so that later builds need no torch."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from omni2_engine.errors import CheckpointError, SettingError
from omni2_export.checkpoint.safetensors_file import SafetensorsFile, write_safetensors
from omni2_export.checkpoint.torch_file import open_weights

MADE_FROM = "converted_from"  # in the metadata of a converted file: the name of what it was made from


def convert(source: Path, target: Path | None = None) -> Path:
    """Write the tensors of a `.pt` file as `.safetensors`; plain data beside them, a Whisper file's `dims` among it,
    goes into its metadata.

    Args:
        source: the `.pt` file, or a `.safetensors` file, whose metadata is kept.
        target: the file to write; the source's name with `.safetensors` by default. One that `convert` made is
            replaced.

    Returns:
        The file written; it is either whole or absent.

    Raises:
        CheckpointError: the source cannot be read.
        SettingError: the target cannot be written, is the source itself, or is a file that `convert` did not make.
    """
    target = target or source.with_suffix(".safetensors")
    if target.suffix != ".safetensors":
        raise SettingError(f"{target} does not end in .safetensors", "choose such a name")
    if not target.parent.is_dir():
        raise SettingError(f"{target.parent} is not a directory", "create it first")
    _check_target(source, target)
    tensors = open_weights(source)
    size = sum(math.prod(tensors.shape(name)) * tensors.dtype(name).itemsize for name in tensors.names())
    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise SettingError(f"{target} takes {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free", "free disk space")
    write_safetensors(target, tensors, {MADE_FROM: source.name} | tensors.metadata)
    return target


def _check_target(source: Path, target: Path) -> None:
    if not target.exists():
        return
    if source.exists() and target.samefile(source):
        raise SettingError(f"{target} is the file to convert itself", "name another file with -o")
    try:
        made = MADE_FROM in SafetensorsFile(target).metadata
    except CheckpointError:
        made = False
    if not made:
        raise SettingError(
            f"{target} cannot be written: it exists, and `convert` did not make it",
            "move it elsewhere, or choose another name with -o",
        )
