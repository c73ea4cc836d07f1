"""The weight file of a graph: tensors go from the checkpoint into it one by one, never all in memory at once.

Arrays handed out by `WeightWriter.allocate` are views of the file itself, so filling them costs page cache, not
anonymous memory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn

import ml_dtypes
import numpy as np
import onnx_ir as ir

from omni2_engine.errors import Omni2Error

ZEROS = 1 << 22  # bytes written at a time where room can only be had by writing
ALIGNMENT = 4096  # bytes; ONNX Runtime maps page-aligned external data instead of reading it
STORAGE = {
    ir.DataType.FLOAT: np.dtype(np.float32),
    ir.DataType.INT8: np.dtype(np.int8),
    ir.DataType.INT4: np.dtype(np.uint8),  # two values a byte
    ir.DataType.FLOAT8E4M3FN: np.dtype(ml_dtypes.float8_e4m3fn),
    ir.DataType.FLOAT16: np.dtype(np.float16),
    ir.DataType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}


class WeightWriter:
    """Appends named tensors to `<stem>.weights` beside a graph, or beside several that have the same; use as a context
    manager.

    Args:
        path: the weight file to write; its name becomes the ONNX external-data location.
        on_bytes: called with the number of bytes of each tensor once it is written (progress).
    """

    def __init__(self, path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        self.path = path
        self._on_bytes = on_bytes
        self._file = path.open("w+b")
        self._end = 0
        self._views: list[tuple[np.memmap, int]] = []
        self._tensors: dict[str, ir.ExternalTensor] = {}

    def find(self, name: str) -> ir.ExternalTensor | None:
        """The tensor of that name, if another graph over the same weights has written it."""
        return self._tensors.get(name)

    def allocate(self, name: str, dtype: ir.DataType, shape: tuple[int, ...]) -> tuple[ir.ExternalTensor, np.ndarray]:
        """Reserve room for one tensor.

        Args:
            name: initializer name.
            dtype: ONNX element type; INT4 is handed out as packed bytes of shape (elements + 1) // 2.
            shape: the tensor's shape.

        Returns:
            The external tensor for the graph, and a writable view of the file to fill with its values.

        Raises:
            Omni2Error: the disk is full.
        """
        self._finish_views()
        storage = STORAGE[dtype]
        elements = int(np.prod(shape, dtype=np.int64))
        packed = dtype == ir.DataType.INT4
        stored_shape = ((elements + 1) // 2,) if packed else shape
        length = int(np.prod(stored_shape, dtype=np.int64)) * storage.itemsize
        offset = -(-self._end // ALIGNMENT) * ALIGNMENT
        try:
            _take_room(self._file, offset, max(length, 1))
        except OSError as error:
            raise Omni2Error(
                f"cannot write {self.path}: {error.strerror}", "free disk space and run the build again"
            ) from error
        self._end = offset + length
        view = np.memmap(self._file, dtype=storage, mode="r+", offset=offset, shape=stored_shape)
        self._views.append((view, length))
        tensor = self._tensors[name] = ir.ExternalTensor(
            self.path.name, offset, length, dtype, shape=ir.Shape(shape), name=name, base_dir=str(self.path.parent)
        )
        return tensor, view

    def _finish_views(self) -> None:
        while self._views:
            view, length = self._views.pop()
            view.flush()
            self._on_bytes(length)

    def close(self) -> None:
        """Write everything out; the file is complete afterwards."""
        self._finish_views()
        self._file.truncate(max(self._end, 1))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> WeightWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._views.clear()
            self._file.close()


class WrittenWeights:
    """Weights that another graph has already, for one that needs no others; in a `WeightWriter`'s place.

    Args:
        graph: that other `.onnx` file; the new one is to lie beside it.
    """

    def __init__(self, graph: Path) -> None:
        stored = (value.const_value for value in ir.load(graph).graph.initializers.values())
        self._tensors = {t.name: t for t in stored if isinstance(t, ir.ExternalTensor)}

    def find(self, name: str) -> ir.ExternalTensor | None:
        """The tensor of that name."""
        return self._tensors.get(name)

    def allocate(self, name: str, dtype: ir.DataType, shape: tuple[int, ...]) -> NoReturn:
        """There is no room for others.

        Raises:
            KeyError: always.
        """
        raise KeyError(f"no weight is called {name}")


def _take_room(file: BinaryIO, offset: int, length: int) -> None:
    """Have the disk keep room for part of a file. Without it a mapped page would end the process with SIGBUS when the
    disk is full.

    Raises:
        OSError: it is full.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), offset, length)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems cannot
                raise
    file.seek(offset)  # macOS and Windows: only what is written has room
    for start in range(0, length, ZEROS):
        file.write(bytes(min(ZEROS, length - start)))
    file.flush()
