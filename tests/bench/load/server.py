"""A Realtime server of a few lines that hears by level and answers with a tone: for tests of its callers."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

RATE, SILENT_FRAMES = 24_000, 10
PIECE = base64.b64encode((8000 * np.sin(np.arange(RATE // 5))).astype("<i2").tobytes()).decode()  # 0.2 s


@dataclass
class ToneServer:
    """Answers each question with some seconds of a tone.

    Args:
        thinks: seconds from its decision to the first piece.
        pieces: of 0.2 s in an answer.
        every: seconds between two pieces.
        places: conversations at once.
        full_with: what one too many gets, the status 503 or the close code 1013.
    """

    thinks: float = 0.3
    pieces: int = 10
    every: float = 0.1
    places: int = 100
    full_with: int = 503
    open: int = 0
    most: int = 0
    truncated: list[int] = field(default_factory=list)
    answered: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve on a free port; gives the address."""
        patient: dict[str, Any] = {"open_timeout": None, "ping_interval": None}  # a busy machine is not a broken one
        async with serve(self._serve, "127.0.0.1", 0, process_request=self._admit, **patient) as server:
            yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/v1/realtime?model=tone"

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.full_with == 503 and self.open >= self.places:
            response = connection.respond(503, "full\n")
            response.headers["Retry-After"] = "7"
            return response
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        if self.open >= self.places:
            await socket.close(1013, "full")
            return
        self.open += 1
        self.most = max(self.most, self.open)
        talk = _Talk(self, socket)
        try:
            await talk.run()
        except ConnectionClosed:
            pass
        finally:
            self.open -= 1
            talk.stop()


class _Talk:
    def __init__(self, server: ToneServer, socket: ServerConnection) -> None:
        self._server, self._socket = server, socket
        self._answer: asyncio.Task[None] | None = None
        self._ids = itertools.count()

    async def _say(self, kind: str, **fields: Any) -> None:
        await self._socket.send(json.dumps({"type": kind, "event_id": f"e{next(self._ids)}", **fields}))

    async def run(self) -> None:
        await self._say("session.created", session={})
        speaking, silent = False, 0
        async for message in self._socket:
            event = json.loads(message)
            if event["type"] == "session.update":
                await self._say("session.updated", session=event["session"])
            elif event["type"] == "conversation.item.truncate":
                self._server.truncated.append(event["audio_end_ms"])
            elif event["type"] == "input_audio_buffer.append":
                loud = np.abs(np.frombuffer(base64.b64decode(event["audio"]), "<i2")).max() > 1000
                silent = 0 if loud else silent + 1
                if loud and not speaking:
                    speaking = True
                    await self._say("input_audio_buffer.speech_started")
                    await self._cancel()
                elif speaking and silent == SILENT_FRAMES:
                    speaking = False
                    await self._say("input_audio_buffer.speech_stopped")
                    self._answer = asyncio.create_task(self._respond(f"r{next(self._ids)}"))

    async def _respond(self, response: str) -> None:
        with suppress(ConnectionClosed):
            await self._play(response)

    async def _play(self, response: str) -> None:
        await self._say("response.created", response={"id": response})
        status = "completed"
        try:
            await asyncio.sleep(self._server.thinks)
            for _ in range(self._server.pieces):
                fields = {"response_id": response, "item_id": f"i{response}", "delta": PIECE}
                await self._say("response.output_audio.delta", **fields)
                await asyncio.sleep(self._server.every)
            self._server.answered += 1
        except asyncio.CancelledError:
            status = "cancelled"
        await self._say("response.done", response={"id": response, "status": status})

    async def _cancel(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.cancel()
            await asyncio.gather(self._answer, return_exceptions=True)

    def stop(self) -> None:
        if self._answer is not None:
            self._answer.cancel()
