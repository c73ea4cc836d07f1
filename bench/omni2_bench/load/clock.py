"""The time callers live in."""

from __future__ import annotations

import asyncio


class Clock:
    """Seconds since its making, by the event loop that runs."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def now(self) -> float:
        """Seconds so far."""
        return self._loop.time() - self._began

    async def until(self, moment: float) -> None:
        """Wait for a moment; at once if it has passed."""
        await asyncio.sleep(max(0.0, moment - self.now()))
