"""The kernels on the host: compiled by g++, threads of a block emulated, launched as `cuLaunchKernel` launches them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from omni2_kernels.decoding import BATCH, CANDIDATE, CONTEST, NO_ID, REPORT, State, element_type, new_rows
from omni2_kernels.launch import Launch
from omni2_kernels.registry import KERNELS

from ..engine.stand_ins.cuda import build_emulated_kernels

MARGIN = 64  # elements around an array that no kernel may touch


class Emulator:
    """The library of the host-compiled kernels."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.library.omni2_emulated_error.restype = ctypes.c_char_p
        self.library.omni2_emulated_kernel.restype = ctypes.c_char_p
        self.library.omni2_emulated_order.argtypes = [ctypes.c_uint64]

    def launch(self, launch: Launch) -> None:
        """Run it to its end."""
        values = [ctypes.create_string_buffer(value, len(value)) for value in launch.arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        if self.library.omni2_emulated_launch(launch.kernel.encode(), *launch.grid, *launch.block, 0, pointers):
            raise RuntimeError(self.library.omni2_emulated_error().decode())

    def run(self, kernel: str, sizes: dict[str, int], *arguments: object) -> None:
        self.launch(KERNELS[kernel].launch(sizes, *arguments))


class Guarded:
    """An array between margins; `intact` tells whether these are as they were."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        margin = MARGIN * max(np.dtype(dtype).itemsize, 8)
        self._all = np.full(size + 2 * margin, 0xC3, np.uint8)
        self._margins = [self._all[:margin], self._all[margin + size :]]
        self.array: NDArray[Any] = self._all[margin : margin + size].view(dtype).reshape(shape)

    @property
    def intact(self) -> bool:
        return all((margin == 0xC3).all() for margin in self._margins)


class Decoding:
    """A batch as the device holds it: every array of `BATCH`, by the names there."""

    logits: NDArray[np.float32]
    chosen: NDArray[np.int32]
    contests: NDArray[np.void]
    candidates: NDArray[np.void]
    generated: NDArray[np.int32]
    forced: NDArray[np.int32]
    tokens: NDArray[np.int32]
    reports: NDArray[np.void]
    hidden: NDArray[np.float32]
    hidden_ring: NDArray[np.float32]
    embeds: NDArray[Any]
    positions: NDArray[np.int64]
    write: NDArray[np.int64]
    mask: NDArray[np.uint8]

    def __init__(
        self,
        emulator: Emulator,
        rows: int,
        vocab: int,
        *,
        width: int = 8,
        visible: int = 32,
        capacity: int = 40,
        ring: int = 16,
        hidden_ring: int = 6,
        logits_stride: int | None = None,
        table: NDArray[Any] | None = None,
        embeds: DTypeLike = np.float32,
    ) -> None:
        self.emulator = emulator
        self.table = np.zeros((vocab, width), np.float32) if table is None else table
        stride = logits_stride or vocab
        self._guarded = {
            "logits": Guarded((rows, stride), np.float32),
            "chosen": Guarded((rows,), np.int32),
            "contests": Guarded((rows,), CONTEST),
            "candidates": Guarded((rows, vocab), CANDIDATE),
            "generated": Guarded((rows, capacity), np.int32),
            "forced": Guarded((rows, capacity), np.int32),
            "tokens": Guarded((rows, ring), np.int32),
            "reports": Guarded((rows,), REPORT),
            "hidden": Guarded((rows, width), np.float32),
            "hidden_ring": Guarded((rows, hidden_ring, width), np.float32),
            "embeds": Guarded((rows, width), embeds),
            "positions": Guarded((rows,), np.int64),
            "write": Guarded((rows,), np.int64),
            "mask": Guarded((rows, visible), np.uint8),
        }
        self.rows = new_rows(rows)
        self.rows["state"] = State.RUNNING
        self.rows["until"] = 2**31
        self.rows["spare"] = visible - 1
        self.batch = np.zeros((), BATCH)
        self.batch["rows"] = self.rows.ctypes.data
        self.batch["table"] = self.table.ctypes.data
        for name, guarded in self._guarded.items():
            setattr(self, name, guarded.array)
            guarded.array[...] = NO_ID if name == "forced" else np.zeros((), guarded.array.dtype)
            self.batch[name] = guarded.array.ctypes.data
        self.batch["logits_stride"], self.batch["hidden_stride"] = stride, width
        self.batch["vocab"], self.batch["width"], self.batch["visible"] = vocab, width, visible
        self.batch["table_rows"] = len(self.table)
        self.batch["generated_capacity"] = self.batch["forced_capacity"] = capacity
        self.batch["token_ring_size"], self.batch["hidden_ring_size"] = ring, hidden_ring
        self.batch["table_type"], self.batch["embeds_type"] = element_type(self.table.dtype), element_type(embeds)

    def run(self, kernel: str, *arguments: object) -> None:
        """One kernel over all rows."""
        self.emulator.run(kernel, {"rows": len(self.rows), "vocab": int(self.batch["vocab"])}, self.batch, *arguments)
        assert all(guarded.intact for guarded in self._guarded.values()), f"{kernel} wrote beside an array"

    def choose(self, serve: State = State.RUNNING) -> NDArray[np.int32]:
        """Both halves of the choice; the ids of all rows."""
        self.run("rank_logits", serve)
        self.run("draw_token", serve)
        left = [name for name in CONTEST.names or () if name not in ("cut", "rank") and self.contests[name].any()]
        assert not left, f"the next step finds {left} of this one"
        return self.chosen


@pytest.fixture(scope="session")
def kernel_library() -> Path:
    """libomni2_emulated.so, built."""
    return build_emulated_kernels()


@pytest.fixture
def emulator(kernel_library: Path) -> Iterator[Emulator]:
    """The emulated kernels, with threads in their own order."""
    emulator = Emulator(kernel_library)
    yield emulator
    emulator.library.omni2_emulated_order(0)


@pytest.fixture
def decoding(emulator: Emulator) -> Any:
    """Makes a `Decoding`: (rows, vocab, …)."""
    return lambda *sizes, **options: Decoding(emulator, *sizes, **options)
