"""The routes of the server."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from omni2_serve.access import sent_key
from omni2_serve.chat.completion import chat_completion
from omni2_serve.client_secrets import client_secret
from omni2_serve.guard import OriginGuard
from omni2_serve.page_files import PageFiles
from omni2_serve.protocol.errors import SERVER, RequestError
from omni2_serve.realtime.connection import Connection
from omni2_serve.replies import problem
from omni2_serve.service import Service

SECRETS, CALLS = "/v1/realtime/client_secrets", "/v1/realtime/calls"
WEBRTC_MODULES = ("aiortc", "av")  # of the extra webrtc


def make_app(service: Service, replicated: bool = False) -> Starlette:
    """The application.

    Args:
        service: what requests share; also at `app.state.service`.
        replicated: other processes run it beside this one, at the same address: what one alone would know is refused.
    """

    async def realtime(websocket: WebSocket) -> None:
        await Connection(websocket, service).run()

    async def models(request: Request) -> Response:
        service.access.check(sent_key(request.headers.get("authorization")))
        model = {"id": service.host.name, "object": "model", "created": int(service.began), "owned_by": "omni2-engine"}
        beyond = {"voices": service.host.voices, **service.host.capabilities.model_dump()}  # for the page
        return JSONResponse({"object": "list", "data": [model | beyond]})

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        stopping = service.draining.is_set()
        return JSONResponse({"ready": not stopping}, 503 if stopping else 200)

    async def metrics(request: Request) -> Response:
        service.access.check(sent_key(request.headers.get("authorization")))
        service.metrics.waiting.set(service.host.waiting())
        service.metrics.memory.set(service.host.memory())
        return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    async def completions(request: Request) -> Response:
        return await chat_completion(request, service)

    async def secrets(request: Request) -> Response:
        return await client_secret(request, service)

    of_one_process = [Route(SECRETS, secrets, methods=["POST"]), *_calls(service)]
    routes: list[BaseRoute] = [
        WebSocketRoute("/v1/realtime", realtime),
        Route("/v1/chat/completions", completions, methods=["POST"]),
        *(REFUSED_BY_REPLICAS if replicated else of_one_process),
        Route("/v1/models", models),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Mount("/", PageFiles()),
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(OriginGuard, service=service),
            Middleware(
                CORSMiddleware,
                allow_origins=sorted(service.access.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["Location", "Retry-After"],
            ),
        ],
        exception_handlers={RequestError: _refused, HTTPException: _not_found, Exception: _broken},
    )
    app.state.service = service
    return app


def _calls(service: Service) -> list[Route]:
    """Routes for WebRTC, where it is installed."""
    try:
        from omni2_serve.webrtc.calls import Calls
    except ModuleNotFoundError as error:
        if error.name not in WEBRTC_MODULES:
            raise

        return [_refusing(CALLS, "this server has no WebRTC", "install omni2-engine[webrtc], or use the WebSocket")]
    calls = Calls(service)
    return [
        Route(CALLS, calls.create, methods=["POST"]),
        Route(f"{CALLS}/{{call}}/hangup", calls.hang_up, methods=["POST"]),
    ]


def _refusing(path: str, problem: str, remedy: str) -> Route:
    """A route for what this server does not do."""

    async def refuse(request: Request) -> Response:
        raise RequestError(problem, remedy, code="unsupported")

    return Route(path, refuse, methods=["POST"])


REFUSED_BY_REPLICAS = [
    _refusing(
        SECRETS,
        "replicas under Ray give no client secrets: one would not know another's",
        "let a server of your own hold the API key and pass conversations on",
    ),
    _refusing(
        CALLS,
        "replicas under Ray take no calls by WebRTC: Ray would neither count nor drain them",
        "use the WebSocket",
    ),
]


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return problem(error)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(
        RequestError(error.detail, code="not_found" if error.status_code == 404 else "bad_request"), error.status_code
    )


async def _broken(request: Request, error: Exception) -> Response:
    return problem(RequestError("something went wrong in the server", code="internal_error", kind=SERVER))
