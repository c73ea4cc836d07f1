"""`.safetensors` files: tensors read one at a time or in slices, and written; sharded model directories."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from omni2_engine.errors import CheckpointError, SettingError
from omni2_engine.system.file_content import is_apple_double
from omni2_export.checkpoint.tensors import Float32, Selection, Tensors, finite, to_float32
from omni2_export.fields import read_json
from omni2_export.input_files import is_there, require_content

DTYPES: dict[str, np.dtype[np.generic]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PART = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.safetensors")
FETCH_AGAIN = "download the file again"
LONGEST_REASON = 160  # characters of a library's message


class StoredTensors(Tensors, Protocol):
    """Tensors that can also be had in the type they are stored in."""

    def stored(self, name: str) -> npt.NDArray[np.generic]:
        """The whole tensor as it is stored."""


class SafetensorsFile:
    """One `.safetensors` file. The file is mapped; a tensor is copied when it is asked for.

    Args:
        path: the file.

    Raises:
        CheckpointError: missing, truncated, malformed, or with a tensor of an unknown type.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        require_content(path, text=False)
        self._file = _open(path)
        self.metadata: dict[str, str] = self._file.metadata() or {}
        names: list[str] = self._file.keys()
        self._slices = {name: self._file.get_slice(name) for name in names}
        for name, stored in self._slices.items():
            if stored.get_dtype() not in DTYPES:
                raise CheckpointError(
                    f"{path}: `{name}` is stored as {stored.get_dtype()}", "convert it to BF16, F16 or F32"
                )

    def names(self) -> list[str]:
        return list(self._slices)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slices[name].get_shape())

    def dtype(self, name: str) -> np.dtype[np.generic]:
        return DTYPES[self._slices[name].get_dtype()]

    def stored(self, name: str) -> npt.NDArray[np.generic]:
        """The whole tensor in the type it is stored in."""
        array: npt.NDArray[np.generic] = self._file.get_tensor(name)
        return array

    def read(self, name: str) -> Float32:
        return finite(to_float32(self.stored(name)), f"{self.path}: `{name}`")

    def rows(self, name: str, start: int, stop: int) -> Float32:
        return finite(to_float32(self._slices[name][start:stop]), f"{self.path}: `{name}`")


def _open(path: Path) -> Any:  # the library's class has no types
    try:
        return safe_open(path, framework="numpy")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "check the path") from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file: {str(error)[:LONGEST_REASON]}", FETCH_AGAIN
        ) from error


def weight_files(directory: Path) -> list[Path]:
    """The weight files of a Hugging Face model directory: one, shards an index lists, or shards without an index.

    Raises:
        CheckpointError: there are none, or a shard is missing.
    """
    if is_there(directory / SINGLE):
        return [directory / SINGLE]
    found = sorted(directory.glob("*.safetensors"))
    present = {file.name for file in found if not is_apple_double(file)}
    needed = set(_weight_map(directory).values())
    if not needed:
        for part in filter(None, map(PART.fullmatch, present)):
            parts = int(part["parts"])
            needed |= {f"{part['stem']}-{i:05d}-of-{parts:05d}.safetensors" for i in range(1, parts + 1)}
        needed |= present
    if not needed:
        for file in found:
            require_content(file, text=False)
        raise CheckpointError(f"{directory} holds no .safetensors weights", "download the whole model directory")
    _require_shards(directory, sorted(needed - present))
    return [directory / name for name in sorted(needed)]


def open_model_directory(directory: Path) -> Tensors:
    """All tensors of a Hugging Face model directory.

    Raises:
        CheckpointError: no weights there, a shard is missing or broken, or two shards hold the same tensor.
    """
    files = weight_files(directory)
    joined = _joined([SafetensorsFile(file) for file in files])
    held = set(joined.names())
    lost = [] if files[0].name == SINGLE else [name for name in _weight_map(directory) if name not in held]
    if lost:
        more = f" and {len(lost) - 1} more tensors" if lost[1:] else ""
        raise CheckpointError(
            f"{directory / INDEX} lists `{lost[0]}`{more} that no shard holds",
            "download all shards and the index of one revision",
        )
    return joined


def _weight_map(directory: Path) -> dict[str, str]:
    """Tensor name → shard by the directory's index; empty without one."""
    path = directory / INDEX
    if not is_there(path):
        return {}
    weight_map = read_json(path).values.get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(file, str) and Path(file).name == file for file in weight_map.values())
    ):
        raise CheckpointError(f"{path} has no table `weight_map` of file names", FETCH_AGAIN)
    return weight_map


def _require_shards(directory: Path, missing: list[str]) -> None:
    if missing:
        more = f" and {len(missing) - 3} more" if missing[3:] else ""
        raise CheckpointError(f"{directory} lacks {', '.join(missing[:3])}{more}", "download the missing shards")


def _joined(shards: list[SafetensorsFile]) -> Selection:
    sources: dict[str, tuple[Tensors, str]] = {}
    for shard in shards:
        for name in shard.names():
            if name in sources:
                raise CheckpointError(f"two shards hold `{name}`, one is {shard.path}", "remove the stray file")
            sources[name] = (shard, name)
    return Selection(sources)


def write_safetensors(path: Path, tensors: StoredTensors, metadata: Mapping[str, str]) -> None:
    """Write tensors in the types they are stored in. The file is written under another name and renamed when whole.

    Tensors of a `.pt` file are mapped and take no memory. Those of a `.safetensors` file are all in memory at once.

    Raises:
        SettingError: the file cannot be written.
    """
    arrays = {name: np.asarray(tensors.stored(name), order="C") for name in tensors.names()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(arrays, temporary, dict(metadata))
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise SettingError(f"{path} cannot be written: {error}", "choose another place or free space") from error
    finally:
        temporary.unlink(missing_ok=True)
