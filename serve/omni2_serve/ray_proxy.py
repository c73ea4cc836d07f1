"""What Ray's proxies do beside passing messages on: a client whose replica has died is told to connect again.

Ray's proxies load `middlewares` by the variable RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH. `omni2-engine serve --ray`
sets it.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RESTARTED = 1012  # close code "service restart": connect again


class ReconnectNotice:
    """Closes a WebSocket that its replica has left open.

    Args:
        app: Ray's proxy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass all messages on, and note which were the last ones of each side."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        opened = closed = False

        async def receiving() -> Message:
            nonlocal closed
            message = await receive()
            closed = closed or message["type"] == "websocket.disconnect"
            return message

        async def sending(message: Message) -> None:
            nonlocal opened, closed
            opened = opened or message["type"] == "websocket.accept"
            if opened and not message["type"].startswith("websocket."):
                return  # an error page of the proxy, which an open WebSocket has no room for
            closed = closed or message["type"] == "websocket.close"
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        finally:
            if opened and not closed:
                reason = "the server of this conversation is gone: connect again"
                await send({"type": "websocket.close", "code": RESTARTED, "reason": reason})


def middlewares() -> list[Middleware]:
    """For Ray's proxies."""
    return [Middleware(ReconnectNotice)]
