"""Writes `.safetensors` files piece by piece: the header from names and shapes, then each tensor as it is drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written: `pieces()` gives its rows in order, float32."""

    name: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[NDArray[np.float32]]]

    def nbytes(self, storage: str) -> int:
        """Bytes it takes in the file."""
        return math.prod(self.shape) * DTYPES[storage].itemsize


def write_file(path: Path, tensors: list[Tensor], storage: str) -> None:
    """One file of all tensors, stored as "F32", "F16" or "BF16"."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.nbytes(storage)
        header[tensor.name] = {"dtype": storage, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            for piece in tensor.pieces():
                file.write(piece.astype(DTYPES[storage], copy=False).view(np.uint8).data)


def write_model(directory: Path, tensors: list[Tensor], storage: str, shard_bytes: int) -> None:
    """`model.safetensors`, or shards of about `shard_bytes` with an index if it would be larger than that."""
    shards: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        size = tensor.nbytes(storage)
        if shard_bytes and shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
    write_shards(directory, shards, storage)


def write_shards(directory: Path, shards: list[list[Tensor]], storage: str) -> None:
    """A file for each shard with an index, or `model.safetensors` if there is one only."""
    if len(shards) == 1:
        write_file(directory / "model.safetensors", shards[0], storage)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(directory / name, shard, storage)
        weight_map |= dict.fromkeys((tensor.name for tensor in shard), name)
    total = sum(tensor.nbytes(storage) for shard in shards for tensor in shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
