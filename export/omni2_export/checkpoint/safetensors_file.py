"""`.safetensors` files: a length, a JSON header, the tensors' bytes; read through a memory map, written in one pass."""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

from omni2_engine.errors import CheckpointError, SettingError
from omni2_engine.file_content import is_apple_double
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
CODES = {dtype: code for code, dtype in DTYPES.items()}
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PART = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.safetensors")
FETCH_AGAIN = "download the file again"


class StoredTensors(Tensors, Protocol):
    """Tensors that can also be had in the type they are stored in."""

    def stored(self, name: str) -> npt.NDArray[np.generic]:
        """The whole tensor as it is stored."""


class SafetensorsFile:
    """One `.safetensors` file.

    Args:
        path: the file.

    Raises:
        CheckpointError: missing, truncated, malformed, or with a tensor of a type we do not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        require_content(path, text=False)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                length = int.from_bytes(file.read(8), "little")
                if size < 8 or length > size - 8:
                    raise CheckpointError(f"{path} is truncated", FETCH_AGAIN)
                header = json.loads(file.read(length))
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}", "check the path") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is not a safetensors file: {error}", FETCH_AGAIN) from error
        if not isinstance(header, dict):
            raise CheckpointError(f"{path} is not a safetensors file: its header is no table", FETCH_AGAIN)
        metadata = header.pop("__metadata__", None)
        self.metadata = {k: v for k, v in metadata.items() if isinstance(v, str)} if isinstance(metadata, dict) else {}
        self._places = {name: self._place(name, entry, 8 + length, size) for name, entry in header.items()}

    def _place(
        self, name: str, entry: object, data: int, size: int
    ) -> tuple[np.dtype[np.generic], tuple[int, ...], int]:
        match entry:
            case {"dtype": str(code), "shape": list(shape), "data_offsets": [int(start), int(stop)]}:
                pass
            case _:
                raise CheckpointError(f"{self.path}: the entry of `{name}` is malformed", FETCH_AGAIN)
        if code not in DTYPES:
            raise CheckpointError(f"{self.path}: `{name}` is stored as {code}", "convert it to BF16, F16 or F32")
        if not all(type(length) is int and length >= 0 for length in shape):
            raise CheckpointError(f"{self.path}: `{name}` has the shape {shape}", FETCH_AGAIN)
        if stop > size - data:
            raise CheckpointError(f"{self.path} is truncated: `{name}` lies beyond its end", FETCH_AGAIN)
        if start < 0 or stop - start != math.prod(shape) * DTYPES[code].itemsize:
            raise CheckpointError(f"{self.path}: the bytes of `{name}` do not fit its shape {shape}", FETCH_AGAIN)
        return DTYPES[code], tuple(shape), data + start

    def names(self) -> list[str]:
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._places[name][1]

    def dtype(self, name: str) -> np.dtype[np.generic]:
        return self._places[name][0]

    def stored(self, name: str) -> npt.NDArray[np.generic]:
        """A read-only view of the mapped file, in the type it is stored in."""
        dtype, shape, offset = self._places[name]
        return np.ndarray(shape, dtype, buffer=self._map, offset=offset)

    def read(self, name: str) -> Float32:
        return finite(to_float32(self.stored(name)), f"{self.path}: `{name}`")

    def rows(self, name: str, start: int, stop: int) -> Float32:
        return finite(to_float32(self.stored(name)[start:stop]), f"{self.path}: `{name}`")


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
    """Write tensors in the types they are stored in, one at a time, to a temporary name that is renamed when whole.

    Raises:
        SettingError: the file cannot be written.
        CheckpointError: a tensor's type has no place in the format.
    """
    # Wide types first: every tensor is then aligned to its own type.
    names = sorted(tensors.names(), key=lambda name: (-tensors.dtype(name).itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        dtype, shape = tensors.dtype(name), tensors.shape(name)
        if dtype not in CODES:
            raise CheckpointError(f"`{name}` is stored as {dtype}, which safetensors does not know")
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    temporary: str | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                file.write(np.ascontiguousarray(tensors.stored(name)).reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise SettingError(
            f"{path} cannot be written: {error.strerror}", "choose another place or free space"
        ) from error
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _umask() -> int:
    """The process's file mode mask, which temporary files ignore; there is no way to ask but to set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
