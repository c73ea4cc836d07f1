"""A lane of the device: the stream of one stage, and the working memory its graphs use one after another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from omni2_engine._core import CudaDevice, CudaGraph, CudaStream, DeviceMemory, PinnedMemory
from omni2_engine.backends.cuda.pool import MemoryPool
from omni2_engine.backends.cuda.stopwatch import Stopwatch
from omni2_engine.errors import BackendError

GRAPHS_OFF = "load the engine with cuda_graphs=False (on the command line --no-cuda-graphs)"


class Lane:
    """One stage's stream.

    Whoever enqueues work holds the lane's lock while it does: a stage runs on one thread at a time, but states are made
    and voices projected on others, and what they enqueue must not get into a graph that is being recorded.

    Args:
        device: it is a lane of.
        priority: of its stream; lower is more urgent.
        stopwatch: times its calls; nobody does if None.

    Attributes:
        stream: the stream.
        lock: of the lane; may be taken again by the thread that has it.
        pool: memory for state of its graphs.
    """

    def __init__(self, device: CudaDevice, priority: int = 0, stopwatch: Stopwatch | None = None) -> None:
        self.device = device
        self._stopwatch = stopwatch
        self.stream: CudaStream = device.stream(priority)
        self.lock = threading.RLock()
        self.pool = MemoryPool(device, self.stream)
        self._scratch: DeviceMemory | None = None
        self._recorder: int | None = None  # the thread that records
        self._left: list[PinnedMemory] = []  # by it, meanwhile

    def pin(self, nbytes: int) -> LaneMemory:
        """Memory of the host that what is enqueued on the stream may use."""
        return LaneMemory(self, self.device.pin(nbytes))

    def give_back(self, memory: PinnedMemory) -> None:
        """Let go of memory once the stream has passed what was enqueued on it."""
        if self._recorder == threading.get_ident():
            self._left.append(memory)  # nothing is waited for or given back while this thread records
            return
        with suppress(BackendError):  # a device that is lost has given up what was enqueued
            self.stream.synchronize()

    def check(self) -> None:
        """Wait for what was enqueued, unless this thread records.

        Raises:
            BackendError: the device has failed.
        """
        if self._recorder != threading.get_ident():
            self.stream.synchronize()

    def scratch(self, nbytes: int) -> DeviceMemory:
        """Working memory for calls that follow each other on the stream, at least so large; kept for the next asker.

        Raises:
            CapacityError: the device has not so much left.
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
        """Time what is enqueued on the stream meanwhile, if anybody asked for it."""
        return nullcontext() if self._stopwatch is None else self._stopwatch.time(what, self.stream)

    @contextmanager
    def recording(self, what: str) -> Iterator[Recording]:
        """Record what is enqueued on the stream instead of doing it.

        Args:
            what: is recorded, for the error.

        Raises:
            BackendError: something in it cannot be recorded; names `what` and the switch that turns graphs off.
        """
        result = Recording()
        with self.lock:
            self._recorder = threading.get_ident()
            try:
                self.stream.begin_capture()
                try:
                    yield result
                except BaseException:
                    _abandon(self.stream)
                    raise
                result.graph = self.stream.end_capture()
            except BackendError as error:
                raise cannot_record(what, error.problem) from error
            finally:
                self._recorder = None
                self._left.clear()


class LaneMemory:
    """Pinned memory that is given back with its last reference, but not before the lane's stream has passed.

    Attributes:
        memory: itself; must not outlive this object.
    """

    def __init__(self, lane: Lane, memory: PinnedMemory) -> None:
        self._lane = lane
        self.memory = memory

    def __del__(self) -> None:
        self._lane.give_back(self.memory)


class Recording:
    """What `Lane.recording` recorded: `graph`, once it is over."""

    graph: CudaGraph


def cannot_record(what: str, reason: str) -> BackendError:
    """The error for what cannot become a CUDA graph."""
    return BackendError(f"{what} cannot become a CUDA graph: {reason}", GRAPHS_OFF)


def _abandon(stream: CudaStream) -> None:
    with suppress(BackendError):  # what went wrong before is what there is to say
        stream.end_capture()
