"""The answer that a client is being sent: its events, sound that waits until it can be played through, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.metrics import TurnMetrics
from omni2_serve.metrics import Metrics
from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.items import Item
from omni2_serve.protocol.responses import Reason, ResponseEvents
from omni2_serve.protocol.server_events import Event

Send = Callable[[Event], Awaitable[None]]
ERROR, GONE = "error", "gone"  # how a response ended, beside the reasons of `Finished`


class SentAnswer:
    """One response on its way to the client.

    A client plays the first sound as it comes. Where that would run dry later, the sound is held back for the time that
    `Chunk.start_in` says. All methods are called with the session's lock held.

    Args:
        events: of the response.
        send: takes an event to the client.
        lock: the session's.
        metrics: counts what happens.
        asked_at: when it was asked for, by `time.monotonic`.
        failed: gets the exception of a sending that no caller waits for.

    Attributes:
        cancelled_by: who ended it before its time. From then on nothing of it is sent but its end.
        sounded: some of its sound was sent.
    """

    def __init__(
        self,
        events: ResponseEvents,
        send: Send,
        lock: asyncio.Lock,
        metrics: Metrics,
        asked_at: float,
        failed: asyncio.Future[None],
    ) -> None:
        self.cancelled_by: Reason | None = None
        self.sounded = False
        self._events, self._send, self._lock, self._metrics = events, send, lock, metrics
        self._asked_at = asked_at
        self._failed = failed
        self._held: list[Chunk] = []
        self._holding: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """Of the response."""
        return self._events.id

    @property
    def item(self) -> Item:
        """What it adds to the conversation."""
        return self._events.item

    async def begin(self, previous_item_id: str | None) -> None:
        """It is certain."""
        for event in self._events.begin(previous_item_id):
            await self._send(event)

    async def text(self, text: str) -> None:
        """It was written."""
        if self.cancelled_by is None:
            for event in self._events.text(text):
                await self._send(event)

    async def sound(self, chunk: Chunk) -> None:
        """It was spoken."""
        if self.cancelled_by is not None or not self._events.speaks:
            return
        if chunk.index == 0 and chunk.start_in > 0:
            self._holding = asyncio.create_task(self._hold(chunk.start_in))
            self._holding.add_done_callback(self._note_failure)
        if self._holding is not None:
            self._held.append(chunk)
        else:
            await self._send_sound(chunk)

    def cancel(self, by: Reason) -> None:
        """Send no more of it."""
        if self.cancelled_by is None:
            self.cancelled_by = by
            self._held.clear()

    async def finish(self, reason: str, metrics: TurnMetrics | None, error: RequestError | None = None) -> None:
        """It has ended; what is held can be played through now, as all of it is there."""
        if error is None and self.cancelled_by is not None:
            reason = "cancelled"
        self._metrics.turns.labels(reason).inc()  # before the client is told, who may be gone
        if metrics is not None:
            self._metrics.gaps.observe(metrics.underrun)
        await self._send_held()
        for event in self._events.finish(reason, metrics, self.cancelled_by or "turn_detected", error):
            await self._send(event)

    def stop(self) -> None:
        """The session ends before it."""
        self._metrics.turns.labels(GONE).inc()
        if self._holding is not None:
            self._holding.cancel()

    async def _hold(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        async with self._lock:
            await self._send_held()

    async def _send_held(self) -> None:
        held, self._held = self._held, []
        holding, self._holding = self._holding, None
        if holding is not None and holding is not asyncio.current_task():
            holding.cancel()
        for chunk in held:
            await self._send_sound(chunk)

    async def _send_sound(self, chunk: Chunk) -> None:
        for event in self._events.sound(chunk):
            await self._send(event)
            if not self.sounded:
                self.sounded = True
                self._metrics.first_sound.observe(monotonic() - self._asked_at)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)
