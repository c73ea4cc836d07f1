"""The user's words: written down by the recogniser beside the answers, and told when they come."""

from __future__ import annotations

import asyncio

from omni2_serve.metrics import Metrics
from omni2_serve.protocol import server_events as server
from omni2_serve.protocol.items import Item
from omni2_serve.protocol.session_config import Transcription
from omni2_serve.realtime.answer import Send
from omni2_serve.realtime.failures import in_words
from omni2_serve.realtime.state import RealtimeState
from omni2_serve.recogniser.base import RATE, Recogniser
from omni2_serve.sound.formats import Floats


class Transcripts:
    """Asks the recogniser where the session wants it.

    Args:
        recogniser: None where the server has none.
        metrics: counts what comes.
        state: of the session.
        send: takes an event to the client.
        lock: the session's.
        failed: gets the exception of a sending that no caller waits for.
    """

    def __init__(
        self,
        recogniser: Recogniser | None,
        metrics: Metrics,
        state: RealtimeState,
        send: Send,
        lock: asyncio.Lock,
        failed: asyncio.Future[None],
    ) -> None:
        self._recogniser, self._metrics, self._state = recogniser, metrics, state
        self._send, self._lock, self._failed = send, lock, failed
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, item: Item, speech: Floats) -> None:
        """Have an item written down; returns at once.

        Args:
            item: of the user.
            speech: (n,) float32 at 16 kHz, as the model hears it.
        """
        wanted = self._state.config.audio.input.transcription
        if self._recogniser is not None and wanted is not None and len(speech):
            task = asyncio.create_task(self._transcribe(self._recogniser, wanted, item, speech))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    async def close(self) -> None:
        """The session ends: what is not there is not wanted any more."""
        if tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _transcribe(self, recogniser: Recogniser, wanted: Transcription, item: Item, speech: Floats) -> None:
        try:
            pieces = await recogniser.transcribe(speech, wanted.language, wanted.prompt)
        except Exception as error:
            events = [server.transcription_failed(item.id, in_words(error))]
            outcome = "failed"
        else:
            item.text = "".join(pieces).strip()
            events = [server.transcription_delta(item.id, piece) for piece in pieces]
            events.append(server.transcription_completed(item.id, item.text, len(speech) / RATE))
            outcome = "completed"
        self._metrics.transcripts.labels(outcome).inc()
        async with self._lock:
            for event in events:
                if item in self._state.items:
                    await self._send(event)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)
