"""Looks at something again and again while something else runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def watching(look: Callable[[], object], every: float) -> Iterator[None]:
    """Look now, and again until the block is left, on a thread of its own.

    Args:
        look: called again and again. An `OSError` ends that: there is nothing more to look at.
        every: seconds between two looks.
    """
    left = threading.Event()

    def work() -> None:
        with suppress(OSError):
            look()
            while not left.wait(every):
                look()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()
