"""HTTP answers that tell of a problem."""

from __future__ import annotations

from starlette.responses import JSONResponse

from omni2_serve.protocol.errors import RequestError
from omni2_serve.service import RETRY_AFTER

STATUSES = {
    "invalid_api_key": 401,
    "call_not_found": 404,
    "too_large": 413,
    "unsupported_media_type": 415,
    "too_many_secrets": 429,
    "server_busy": 503,
    "server_full": 503,
    "server_stopping": 503,
    "internal_error": 500,
    "unsupported": 501,
}


def problem(error: RequestError, status: int | None = None) -> JSONResponse:
    """An error as clients of the interface read it; the status follows from its code unless it is given."""
    status = status or STATUSES.get(error.code, 400)
    body = {"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}}
    headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status, headers)
