"""The time callers live in."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """Seconds since its making.

    Args:
        speed: seconds of the callers per second of the world; above 1 only against a server that is made for it.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._began = time.perf_counter()

    def now(self) -> float:
        """Seconds so far."""
        return (time.perf_counter() - self._began) * self._speed

    async def until(self, moment: float) -> None:
        """Wait for a moment; at once if it has passed."""
        await asyncio.sleep(max(0.0, moment - self.now()) / self._speed)

    def of_the_world(self, seconds: float) -> float:
        """Seconds of the world that so long takes."""
        return seconds / self._speed
