"""An event loop for callers and servers that mostly wait: a wait takes a tenth of its time, work takes none.

The loop's clock counts nothing but waits that came to their end. So what is seen does not depend on how busy the
machine is, as long as all who talk live in one loop: what one sends another is there at once.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

SPEED = 10.0
T = TypeVar("T")


class ShortWaits(selectors.DefaultSelector):
    """Waits a part of what it is asked to.

    Attributes:
        waited: seconds it was asked to wait and did, as nothing came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """See `selectors.BaseSelector.select`."""
        found = super().select(None if timeout is None else timeout / SPEED)
        if timeout is not None and not found:
            self.waited += max(0.0, timeout)
        return found


class FastLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._waits = ShortWaits()
        super().__init__(self._waits)

    def time(self) -> float:
        """Seconds of the waits so far."""
        return self._waits.waited


def run_fast(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in such a loop."""
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return runner.run(work)
