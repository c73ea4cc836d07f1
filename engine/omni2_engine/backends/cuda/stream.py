"""The CUDA stream of one stage, its memory pool, and the working memory its graphs use one after another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from omni2_engine._core import CudaDevice, CudaGraph, CudaStream, DeviceMemory, PinnedMemory
from omni2_engine.backends.cuda.collection import PAUSE
from omni2_engine.backends.cuda.pool import MemoryPool
from omni2_engine.backends.cuda.stopwatch import Stopwatch
from omni2_engine.errors import BackendError

GRAPHS_OFF = "load the engine with cuda_graphs=False (on the command line --no-cuda-graphs)"


class StageStream:
    """One stage's CUDA stream.

    A thread holds `lock` while it enqueues work. A stage runs on one thread at a time, but other threads make states
    and project voices, and their work must not get into a graph that is being recorded.

    Args:
        device: the GPU.
        priority: of its stream; lower is more urgent.
        stopwatch: times its calls; they are not timed if None.

    Attributes:
        cuda: the CUDA stream.
        lock: re-entrant; held while work is enqueued.
        pool: memory for state of its graphs.
    """

    def __init__(self, device: CudaDevice, priority: int = 0, stopwatch: Stopwatch | None = None) -> None:
        self.device = device
        self._stopwatch = stopwatch
        self.cuda: CudaStream = device.stream(priority)
        self.lock = threading.RLock()
        self.pool = MemoryPool(device, self.cuda)
        self._scratch: DeviceMemory | None = None
        self._recorder: int | None = None  # id of the thread that records
        self._left: list[PinnedMemory] = []  # what is freed meanwhile

    def pin(self, nbytes: int) -> PinnedLease:
        """Pinned memory of the host for work on the stream."""
        return PinnedLease(self, self.device.pin(nbytes))

    def give_back(self, memory: PinnedMemory) -> None:
        """Free pinned memory once the stream has run what was enqueued."""
        if self._recorder is not None:
            self._left.append(memory)  # while a thread records, none can wait or free
            return
        with suppress(BackendError):  # a lost device has dropped what was enqueued
            self.cuda.synchronize()

    def check(self) -> None:
        """Wait for what was enqueued, unless this thread records.

        Raises:
            BackendError: the device has failed.
        """
        if self._recorder != threading.get_ident():
            self.cuda.synchronize()

    def scratch(self, nbytes: int) -> DeviceMemory:
        """Working memory of at least `nbytes` for calls that follow each other on the stream; kept for the next call.

        Raises:
            CapacityError: the device has not enough memory.
        """
        with self.lock:
            if self._scratch is None or self._scratch.nbytes < nbytes:
                self._scratch = self.device.allocate(nbytes)
            return self._scratch

    @property
    def scratch_bytes(self) -> int:
        """Bytes of working memory."""
        return 0 if self._scratch is None else self._scratch.nbytes

    def timed(self, what: str) -> AbstractContextManager[None]:
        """Time what is enqueued in the `with` block, if there is a stopwatch."""
        return nullcontext() if self._stopwatch is None else self._stopwatch.time(what, self.cuda)

    @contextmanager
    def recording(self, what: str) -> Iterator[GraphCapture]:
        """Record what is enqueued on the stream as a CUDA graph instead of running it.

        Args:
            what: is recorded, for the error message.

        Raises:
            BackendError: something in it cannot be recorded; names `what` and the switch that turns graphs off. Or the
                device had failed before.
        """
        result = GraphCapture()
        with self.lock, PAUSE.held():  # a context of TensorRT that is collected frees memory: that voids captures
            self._recorder = threading.get_ident()
            try:
                self.cuda.begin_capture()
                try:
                    yield result
                except BaseException:
                    _abandon(self.cuda)
                    raise
                result.graph = self.cuda.end_capture()
            except BackendError as error:
                self.cuda.synchronize()  # an earlier failure of the device is the error to report
                raise cannot_record(what, error.problem) from error
            finally:
                self._recorder = None
                left, self._left = self._left, []
                if left:
                    with suppress(BackendError):
                        self.cuda.synchronize()


class PinnedLease:
    """Pinned memory, freed with its last reference, but not before the stream has run its work.

    Attributes:
        memory: must not outlive this object.
    """

    def __init__(self, stream: StageStream, memory: PinnedMemory) -> None:
        self._stream = stream
        self.memory = memory

    def __del__(self) -> None:
        self._stream.give_back(self.memory)


class GraphCapture:
    """The result of `StageStream.recording`: `graph`, after the `with` block."""

    graph: CudaGraph


def cannot_record(what: str, reason: str) -> BackendError:
    """The error for what cannot become a CUDA graph."""
    return BackendError(f"{what} cannot become a CUDA graph: {reason}", GRAPHS_OFF)


def _abandon(stream: CudaStream) -> None:
    with suppress(BackendError):  # the first error is the one to report
        stream.end_capture()
