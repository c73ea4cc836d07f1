"""Bodies of requests, no larger than they may be."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from omni2_serve.protocol.errors import RequestError, invalid

M = TypeVar("M", bound=BaseModel)


async def read_body(request: Request, most: int) -> bytes:
    """The body.

    Args:
        request: whose body has not been read.
        most: bytes.

    Raises:
        RequestError: it is too large.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise RequestError(f"the body is larger than {most} bytes", "send less", code="too_large")
    return bytes(body)


async def read_json(request: Request, model: type[M], most: int) -> M:
    """The body as a checked record.

    Args:
        request: whose body has not been read.
        model: what it should be.
        most: bytes.

    Raises:
        RequestError: it is too large, no JSON, or a field is wrong.
    """
    body = await read_body(request, most)
    try:
        return model.model_validate(from_json(body or b"{}", allow_inf_nan=False))
    except ValidationError as error:
        raise invalid(error) from None
    except ValueError:
        raise RequestError("the body is not JSON", "send a JSON object", code="invalid_json") from None
