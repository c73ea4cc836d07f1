"""What Ray's proxies do beside passing messages on: clients that have no replica, or none any more, are told so.

Ray's proxies load `middlewares` by the variable RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH. `omni2-engine serve --ray`
sets it.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omni2_serve.protocol.errors import SERVER, RequestError
from omni2_serve.replies import problem

RESTARTED = 1012  # close code "service restart": connect again
NO_REPLICA = RequestError("no replica takes conversations", "ask again later", code="server_busy", kind=SERVER)


class ReconnectNotice:
    """Has words for WebSockets where Ray's proxy has pages.

    Where no replica lets one in, it is refused with 503 and Retry-After. Where its replica has left one open, it is
    closed with 1012.

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
            kind = message["type"]
            if not kind.startswith("websocket."):  # a page of the proxy: it has no replica, or has lost it
                if not opened and not closed:
                    closed = True
                    await problem(NO_REPLICA)(scope, receive, send)
                return
            opened = opened or kind == "websocket.accept"
            closed = closed or kind in ("websocket.close", "websocket.http.response.start")
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
