"""Garbage collection, which is off in the whole process while any of its threads records a CUDA graph."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CollectionPause:
    """Keeps garbage collection off as long as one thread or more need it to be."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._was_on = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is collected in the `with` block. Behind the last of several such blocks all is as before."""
        with self._lock:
            if not self._users:
                self._was_on = gc.isenabled()
                gc.disable()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._was_on:
                    gc.enable()


PAUSE = CollectionPause()  # the switch is the process's
