"""Times work on the device by its own clock: an event before each piece of work, and one behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from omni2_engine._core import CudaDevice, CudaEvent, CudaStream


@dataclass(frozen=True)
class Timing:
    """One piece of work: its name, and the seconds from its begin to its end on the stream."""

    what: str
    seconds: float


class Stopwatch:
    """Times pieces of work on the streams of a device. Several threads may use it, each on its own stream.

    Waits within a piece count; work of the host before and behind it does not.

    Args:
        device: the device.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._pieces: list[tuple[str, CudaEvent, CudaEvent]] = []

    @contextmanager
    def time(self, what: str, stream: CudaStream) -> Iterator[None]:
        """Time what is enqueued in the `with` block; not for a stream that is recorded. Failed work does not count."""
        start, stop = self._device.event(timed=True), self._device.event(timed=True)
        stream.record(start)
        yield
        stream.record(stop)
        with self._lock:
            self._pieces.append((what, start, stop))

    def take(self) -> list[Timing]:
        """Times since the last call, in the order of enqueueing; waits for the work to end.

        Raises:
            BackendError: the device failed.
        """
        with self._lock:
            pieces, self._pieces = self._pieces, []
        for _, _, stop in pieces:
            stop.synchronize()
        return [Timing(what, stop.since(start)) for what, start, stop in pieces]
