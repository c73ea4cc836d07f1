"""The stand-in libcudart (tests/cpp/fake_cudart.h) from Python: a device that tests control, and look into."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...make import make
from ...waiting import SOON

ILLEGAL_ADDRESS, LAUNCH_FAILURE = 700, 719
HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
LIVE = ("streams", "events", "graphs", "modules", "allocations", "bytes", "pinned")


def build_fake_cudart() -> Path:
    """Build it, or find it built; skips the test where there is no compiler."""
    return make("cpp", "fake") / "libfake_cudart.so"


def build_emulated_kernels() -> Path:
    """Build what `FakeCuda.emulate` takes, or find it built; skips the test where there is no compiler."""
    return make("kernels") / "libomni2_emulated.so"


class FakeCuda:
    """The library and its controls.

    Args:
        path: of the library.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._library = library = ctypes.CDLL(self.path)
        library.fake_cuda_log.restype = ctypes.c_char_p
        library.fake_cuda_contents.restype = ctypes.c_void_p
        library.fake_cuda_contents.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        library.fake_cuda_live_bytes.restype = ctypes.c_size_t
        library.fake_cuda_set_memory.argtypes = [ctypes.c_size_t]
        self.function = library.__getattr__
        self.raised: list[BaseException] = []  # by functions on streams
        self._kept: list[Any] = []

    def reset(self) -> None:
        """As if the process were new, but for what still lives."""
        self.forget()
        self._library.fake_cuda_reset()

    def settle(self) -> None:
        """Wait until nothing that was enqueued runs any more; on a lost device too."""
        assert self._library.fake_cuda_settle(int(1000 * SOON)), "a stream waits for something that does not come"

    def forget(self) -> None:
        """Let go of Python functions that were enqueued, once all of them have run."""
        self.settle()
        self.raised.clear()
        self._kept.clear()

    def set_memory(self, nbytes: int) -> None:
        """How much the device has beyond what is allocated already."""
        self._library.fake_cuda_set_memory(self.live()["bytes"] + nbytes)

    def set_capability(self, major: int, minor: int) -> None:
        self._library.fake_cuda_set_capability(major, minor)

    def set_devices(self, count: int) -> None:
        self._library.fake_cuda_set_devices(count)

    def refuse(self, function: str, status: int, after: int = 0) -> None:
        """The call of a CUDA function behind `after` others fails."""
        self._library.fake_cuda_refuse_after(function.encode(), status, after)

    def lose(self, status: int = ILLEGAL_ADDRESS) -> None:
        """The device is lost, now and for good."""
        self._library.fake_cuda_lose(status)

    def delay(self, stream: int, microseconds: int) -> None:
        self._library.fake_cuda_delay(ctypes.c_void_p(stream), microseconds)

    def emulate(self, library: Path) -> int:
        """Run kernels with a library that emulates them on the host; returns how many it has."""
        return int(self._library.fake_cuda_emulate(str(library).encode()))

    def is_recorded(self, stream: int) -> bool:
        return bool(self._library.fake_cuda_is_recorded(ctypes.c_void_p(stream)))

    def launch(self, stream: int, function: Callable[[], None]) -> int:
        """Enqueue a Python function, as often as a recording of it is launched; returns CUDA's status.

        What it raises loses the device, as a kernel that fails does.
        """

        def run(_: object) -> None:
            try:
                function()
            except BaseException as error:
                self.raised.append(error)
                self.lose(LAUNCH_FAILURE)

        kept = HOST_FUNCTION(run)
        self._kept.append(kept)  # a recording may call it at any time
        return int(self._library.fake_cuda_call(ctypes.c_void_p(stream), kept, None))

    def live(self) -> dict[str, int]:
        """What was made and not given back."""
        return {kind: getattr(self._library, f"fake_cuda_live_{kind}")() for kind in LIVE}

    def spinning_waits(self) -> int:
        """Waits, since the device was as new, that kept a processor busy."""
        return int(self._library.fake_cuda_spinning_waits())

    def damaged(self) -> int:
        """Allocations, freed so far, that were written beyond their end."""
        return int(self._library.fake_cuda_damaged_allocations())

    def log_begin(self) -> None:
        self._library.fake_cuda_log_begin()

    def log(self) -> list[str]:
        """What ran since: "<stream> <what>"."""
        return self._library.fake_cuda_log().decode().splitlines()

    def contents(self, address: int, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """What lies at a device address, as a view; IndexError if that is not all allocated."""
        dtype, shape = np.dtype(dtype), tuple(shape)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        found = self._library.fake_cuda_contents(address, nbytes)
        if not found:
            raise IndexError(f"{nbytes} bytes at {address:#x} are no living memory of the device")
        return np.frombuffer((ctypes.c_char * nbytes).from_address(found), dtype).reshape(shape)
