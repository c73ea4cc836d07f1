"""`POST /v1/realtime/client_secrets`: a short-lived key for a browser, which can keep no other."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from omni2_serve.access import USUAL_SECONDS, sent_key
from omni2_serve.bodies import read_json
from omni2_serve.service import Service


class ExpiresAfter(BaseModel):
    """When the key ends."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int = USUAL_SECONDS


class SecretRequest(BaseModel):
    """What may be asked for."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = Field(default_factory=dict)


async def client_secret(request: Request, service: Service) -> Response:
    """Make a key.

    Raises:
        RequestError: the caller has no key of its own, or asks for what cannot be.
    """
    service.access.check(sent_key(request.headers.get("authorization")))
    wanted = await read_json(request, SecretRequest, service.limits.message)
    config = service.changed(service.config(), wanted.session)
    secret = service.access.new_secret(config, wanted.expires_after.seconds)
    shown = service.named(config).shown()
    return JSONResponse({"value": secret.value, "expires_at": secret.expires_at, "session": shown})
