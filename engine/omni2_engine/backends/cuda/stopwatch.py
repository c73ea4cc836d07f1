"""How long work takes on the device, by its own clock: an event before each piece, and one behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from omni2_engine._core import CudaDevice, CudaEvent, CudaStream


@dataclass(frozen=True)
class Timing:
    """One piece of work: what it was, and the seconds from its begin to its end on the stream."""

    what: str
    seconds: float


class Stopwatch:
    """Times pieces of work on the streams of a device. Several threads may use it, each on its own stream.

    What a stream waits for in the midst of a piece counts; what the host does before and behind it does not.

    Args:
        device: the device.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._pieces: list[tuple[str, CudaEvent, CudaEvent]] = []

    @contextmanager
    def time(self, what: str, stream: CudaStream) -> Iterator[None]:
        """Time what is enqueued meanwhile; not for a stream that is being recorded. Work that fails is not counted."""
        start, stop = self._device.event(timed=True), self._device.event(timed=True)
        stream.record(start)
        yield
        stream.record(stop)
        with self._lock:
            self._pieces.append((what, start, stop))

    def take(self) -> list[Timing]:
        """What was timed since the last time, in the order it was enqueued; waits for its end.

        Raises:
            BackendError: the device failed.
        """
        with self._lock:
            pieces, self._pieces = self._pieces, []
        for _, _, stop in pieces:
            stop.synchronize()
        return [Timing(what, stop.since(start)) for what, start, stop in pieces]
