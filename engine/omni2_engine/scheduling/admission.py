"""Who may use how much memory: caches are accounted at their largest before a session or a turn gets them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from omni2_engine.errors import CapacityError

SHARE = 0.8  # of the memory that is free when an engine is loaded


class Admission(StrEnum):
    """What happens to one for whom there is no room.

    WAIT: it waits until others have given enough back, first come, first served. SHORTEN: its flow looks back on less
    of its own sound, as much as there is room for; if even the least does not fit, it is refused. REFUSE: an error says
    how much is missing.
    """

    WAIT = "wait"
    SHORTEN = "shorten"
    REFUSE = "refuse"


class MemoryBudget:
    """Bytes that states of all sessions may take together.

    Args:
        limit: bytes.

    Attributes:
        used: bytes promised at present.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: deque[object] = deque()  # in the order they came
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        """Bytes not promised to anyone."""
        return self.limit - self.used

    def take(self, most: int, least: int, wait: bool) -> int:
        """Promise as many bytes as there are, from `least` to `most`.

        Args:
            most, least: bytes; equal if less than all is of no use.
            wait: until others have given enough back.

        Returns:
            Bytes to give back later.

        Raises:
            CapacityError: `least` is more than the budget will ever have, or than it has now and `wait` is False.
        """
        with self._changed:
            if least > self.limit:
                raise CapacityError(
                    f"this takes {gigabytes(least)} of memory and the engine may use {gigabytes(self.limit)}",
                    "lower max_context, left_context or max_new_tokens, or load with more memory",
                )
            if not wait and least > self.free:
                raise CapacityError(
                    f"this takes {gigabytes(least)} of memory; others use {gigabytes(self.used)} of "
                    f"{gigabytes(self.limit)}",
                    "try again later, lower max_new_tokens or max_last_write, or load with more memory or to shorten",
                )
            taker = object()
            self._waiting.append(taker)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is taker and least <= self.free)
                taken = min(most, self.free)
                self.used += taken
                return taken
            finally:
                self._waiting.remove(taker)
                self._changed.notify_all()

    def give_back(self, taken: int) -> None:
        """Undo a promise of that many bytes."""
        with self._changed:
            self.used -= taken
            self._changed.notify_all()

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
