"""A WebSocket and the session behind it: reading, writing, and the ways in which it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from starlette.websockets import WebSocket, WebSocketDisconnect

from omni2_serve.access import REALTIME_PROTOCOL, sent_key
from omni2_serve.protocol import server_events as server
from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.server_events import Event
from omni2_serve.protocol.session_config import SessionConfig
from omni2_serve.realtime.endings import until_over
from omni2_serve.realtime.failures import POLICY, ClientGone, SessionOver
from omni2_serve.realtime.session import RealtimeSession
from omni2_serve.replies import problem
from omni2_serve.service import Service

ABORT = "omni2.abort"  # ASGI extension of our server: drops the connection without waiting for its reader
log = logging.getLogger(__name__)


@dataclass
class Connection:
    """One client.

    Args:
        websocket: not accepted yet.
        service: what it wants to use.
    """

    websocket: WebSocket
    service: Service

    async def run(self) -> None:
        """From the handshake to the end."""
        protocols: list[str] = self.websocket.scope.get("subprotocols", [])
        key = sent_key(self.websocket.headers.get("authorization"), protocols)
        with ExitStack() as held:
            try:
                config = self.service.access.session(key, self.service.config())
                held.enter_context(self.service.session())
            except RequestError as error:
                if error.code == "invalid_api_key":
                    self.service.metrics.refused.labels("key").inc()
                await self.websocket.send_denial_response(problem(error))
                return
            await self.websocket.accept(REALTIME_PROTOCOL if REALTIME_PROTOCOL in protocols else None)
            await self._converse(self.service.begun(config))

    async def _converse(self, config: SessionConfig) -> None:
        """An open session, to its end."""
        service = self.service
        session = RealtimeSession(
            service.host, service.limits, service.metrics, self._send, config, recogniser=service.recogniser
        )
        log.info("session %s begins", config.id)
        try:
            await session.begin()
            over = await until_over(session, self.service, self._read(session))
            if over is not None:
                await self._say_goodbye(over)
        except ClientGone:
            pass
        finally:
            await session.close()
            log.info("session %s has ended", config.id)

    async def _read(self, session: RealtimeSession) -> SessionOver | None:
        while True:
            try:
                async with asyncio.timeout(self.service.limits.idle):
                    message = await self.websocket.receive()
            except TimeoutError:
                problem = f"nothing came for {self.service.limits.idle:g} s"
                return SessionOver(POLICY, RequestError(problem, "open another session", code="session_idle"))
            if message["type"] == "websocket.disconnect":
                return None
            try:
                wait = await session.receive(message.get("text") or message.get("bytes") or b"")
            except SessionOver as over:
                return over
            if wait > 0:
                await asyncio.sleep(wait)

    async def _send(self, event: Event) -> None:
        try:
            async with asyncio.timeout(self.service.limits.unread):
                await self.websocket.send_text(to_json(event).decode())
        except TimeoutError:
            self._abort()
            raise ClientGone from None
        except (WebSocketDisconnect, RuntimeError):  # the latter once either side has closed
            raise ClientGone from None

    async def _say_goodbye(self, over: SessionOver) -> None:
        await self._send(server.error(over.error, None))
        try:
            async with asyncio.timeout(self.service.limits.unread):
                await self.websocket.close(over.code, over.error.problem)
        except TimeoutError:
            self._abort()
        except (WebSocketDisconnect, RuntimeError):
            pass

    def _abort(self) -> None:
        extensions: dict[str, Any] = self.websocket.scope.get("extensions") or {}
        abort: Callable[[], None] | None = extensions.get(ABORT)
        if abort is not None:
            abort()
