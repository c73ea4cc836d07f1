"""Keeps browsers out that show other people's pages."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from omni2_serve.protocol.errors import RequestError
from omni2_serve.replies import problem
from omni2_serve.service import Service

SAFE = ("GET", "HEAD", "OPTIONS")  # change nothing, and a page of another origin cannot read their answers


class OriginGuard:
    """Refuses requests for another host, and WebSockets and writing requests that come from another's page.

    Args:
        app: what is guarded.
        service: whose `Access` says who may come in.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or (error := self._refusal(scope)) is None:
            await self._app(scope, receive, send)
            return
        self._service.metrics.refused.labels("origin").inc()
        response = problem(error, 403)
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(response)
        else:
            await response(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        headers, access = Headers(scope=scope), self._service.access
        host, origin = headers.get("host", ""), headers.get("origin")
        if not access.knows_host(host):
            return RequestError(
                "the server is not to be called by this name",
                "use localhost, or start it with --allow-origin",
                code="unknown_host",
            )
        writes = scope["type"] == "websocket" or scope["method"] not in SAFE
        if writes and not access.knows_origin(origin, host):
            return RequestError(
                "a page of another origin may not use this server",
                "start it with --allow-origin",
                code="unknown_origin",
            )
        return None
