"""uvicorn, told to drain before it stops and to drop clients that do not read."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from omni2_engine.errors import SettingError
from omni2_serve.realtime.connection import ABORT
from omni2_serve.service import Service

PING, PONG = 20.0, 90.0  # seconds: between pings, and for an answer, which a client that is slowed down gives late
LAST_WORDS = 5.0  # seconds for connections to close
log = logging.getLogger(__name__)


class DroppableSocket(WebSocketsSansIOProtocol):
    """A WebSocket that can be given up although data for a client that does not read is still to be written."""

    def handle_connect(self, event: Request) -> None:
        """Offer it to the application."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[ABORT] = self.transport.abort

    def keepalive_timeout(self) -> None:
        """The client does not answer."""
        super().keepalive_timeout()
        self.transport.abort()


class DrainingServer(uvicorn.Server):
    """Stops in two steps: no new client comes in and answers are finished; then connections are closed.

    A second signal skips the rest.

    Args:
        app: to serve.
        service: behind it.
        ssl: certificate and key files; None for plain HTTP.
    """

    def __init__(self, app: ASGIApp, service: Service, ssl: tuple[str, str] | None = None) -> None:
        certificate, key = ssl or (None, None)
        super().__init__(
            uvicorn.Config(
                app,
                ws=DroppableSocket,
                ws_max_size=service.limits.message,
                ws_ping_interval=PING,
                ws_ping_timeout=PONG,
                ws_per_message_deflate=False,  # sound does not compress, and bombs do
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(LAST_WORDS),
                ssl_certfile=certificate,
                ssl_keyfile=key,
            )
        )
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come; in the main thread, between any two instructions."""
        if self._loop is None or self._service.draining.is_set():
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self.drain)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def drain(self) -> None:
        """Take no new clients, and stop once all have left; called in the loop."""
        if self._drain is None:
            self._service.draining.set()
            log.info("stopping: %d sessions finish their answers", self._service.sessions)
            self._drain = asyncio.create_task(self._stop())

    async def _stop(self) -> None:
        try:
            async with asyncio.timeout(self._service.limits.drain):
                while self._service.sessions or self._service.requests:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log.warning("%d sessions are cut off", self._service.sessions)
        self.should_exit = True


def bound(host: str, port: int) -> socket.socket:
    """A socket at that address, which does not listen yet: no client is let in before the model is warm.

    Raises:
        SettingError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise SettingError(f"{host}:{port} cannot be used: {error.strerror or error}", "use another --port") from None
    return listening
