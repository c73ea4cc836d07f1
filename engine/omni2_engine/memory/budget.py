"""Who may use how much memory: caches are accounted at their largest before a session or a turn gets them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter

from omni2_engine.errors import CapacityError
from omni2_engine.system.waits import Waits

log = logging.getLogger("omni2_engine.memory")


class Admission(StrEnum):
    """What happens to a turn for which there is no room.

    WAIT: it waits until others have given enough back, first come, first served. SHORTEN: its flow looks back on less
    of its own sound, as much as there is room for; if even the least does not fit, it is refused. REFUSE: an error says
    how much is missing.
    """

    WAIT = "wait"
    SHORTEN = "shorten"
    REFUSE = "refuse"


@dataclass(frozen=True, eq=False)
class _Request:
    """Bytes that are waited for, from `least` to `most`."""

    most: int
    least: int
    granted: Future[int] = field(default_factory=Future)


class MemoryBudget:
    """Bytes that states of all sessions may take together. Any thread may use it.

    Args:
        limit: bytes.

    Attributes:
        used: bytes promised at present.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._requests: deque[_Request] = deque()  # in the order they came
        self._granting = False
        self._lock = threading.RLock()  # garbage collection may give bytes back at any moment, in here too

    @property
    def free(self) -> int:
        """Bytes not promised yet."""
        return self.limit - self.used

    @property
    def waiting(self) -> bool:
        """Whether a request waits for bytes."""
        return bool(self._requests)

    def take(self, most: int, least: int, wait: bool) -> Waits[int]:
        """Promise as many bytes as there are, from `least` to `most`.

        Args:
            most, least: bytes; equal if less than all is of no use.
            wait: until others have given enough back, after all who came before. Else nothing is yielded.

        Returns:
            Bytes to give back later.

        Raises:
            CapacityError: `least` is more than the budget will ever have, or than it has now and `wait` is False.
        """
        if not wait:
            return self._take_now(most, least)
        request = self._ask(most, least)
        began = None if request.granted.done() else perf_counter()
        if began is not None:
            log.info("waiting for %s of memory: %s of %s in use", *map(gigabytes, (least, self.used, self.limit)))
        try:
            taken: int = yield request.granted
            if began is not None:
                log.info("got %s of memory after %.0f ms", gigabytes(taken), 1000 * (perf_counter() - began))
            return taken
        except BaseException:  # interrupted, cancelled or out of time
            self._withdraw(request)
            raise

    def _take_now(self, most: int, least: int) -> int:
        with self._lock:
            self._check(least)
            if least > self.free:
                raise CapacityError(
                    f"this takes {gigabytes(least)} of memory; others use {gigabytes(self.used)} of "
                    f"{gigabytes(self.limit)}",
                    "try again later, lower max_new_tokens or max_last_write, or load with more memory or to shorten",
                )
            taken = min(most, self.free)
            self.used += taken
            return taken

    def _ask(self, most: int, least: int) -> _Request:
        self._check(least)
        request = _Request(most, least)
        with self._lock:
            self._requests.append(request)
        self._grant()
        return request

    def _check(self, least: int) -> None:
        if least > self.limit:
            raise CapacityError(
                f"this takes {gigabytes(least)} of memory and the engine may use {gigabytes(self.limit)}",
                "lower max_context, left_context or max_new_tokens, or load with more memory",
            )

    def _withdraw(self, request: _Request) -> None:
        """Wait no more; what was promised meanwhile is given back."""
        with self._lock:
            if request in self._requests:
                self._requests.remove(request)
                taken = 0
            else:
                taken = request.granted.result() if not request.granted.cancelled() else 0
        self.give_back(taken)

    def _grant(self) -> None:
        """Promise memory to the oldest requests, while there is room."""
        with self._lock:
            if self._granting:
                return  # garbage collection gave bytes back in the loop below, which sees them
            self._granting = True
            try:
                while self._requests and self._requests[0].least <= self.free:
                    request = self._requests.popleft()
                    if not request.granted.set_running_or_notify_cancel():
                        continue  # a coroutine that was cancelled while it waited
                    taken = min(request.most, self.free)
                    self.used += taken
                    request.granted.set_result(taken)
            finally:
                self._granting = False

    def give_back(self, taken: int) -> None:
        """Undo a promise of that many bytes."""
        with self._lock:
            self.used -= taken
        self._grant()

    @contextmanager
    def undone_on_error(self, taken: int) -> Iterator[None]:
        """Give the bytes back if what they are for fails."""
        try:
            yield
        except BaseException:
            self.give_back(taken)
            raise


def gigabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.2f} GB"
