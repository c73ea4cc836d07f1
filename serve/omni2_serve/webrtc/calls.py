"""`POST /v1/realtime/calls`: an offer comes in, an answer goes out, and a call begins."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

from pydantic_core import from_json
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from omni2_serve.access import sent_key
from omni2_serve.bodies import read_body
from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.ids import new_id
from omni2_serve.service import Service
from omni2_serve.webrtc.call import PeerCall

LARGEST = 256 * 1024  # bytes of an offer


class Calls:
    """The calls that are open.

    Args:
        service: what they share.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open: dict[str, tuple[PeerCall, asyncio.Task[None]]] = {}

    async def create(self, request: Request) -> Response:
        """Begin a call. The body is the offer, or a form with `sdp` and `session`, as in `session.update`.

        Raises:
            RequestError: the caller may not come in, there is no room, or the offer or the session makes no sense.
        """
        service, name = self._service, new_id("rtc")
        try:
            config = service.access.session(sent_key(request.headers.get("authorization")), service.config())
        except RequestError:
            service.metrics.refused.labels("key").inc()
            raise
        offer, changes = await _read(request)
        config = service.changed(config, changes)
        with ExitStack() as held:
            held.enter_context(service.session())
            call = PeerCall(service, service.begun(config))
            try:
                answer = await call.answer(offer)
            except BaseException:
                await call.close()
                raise
            self._open[name] = call, asyncio.create_task(self._run(name, call, held.pop_all()))
        return Response(answer, 201, {"Location": f"/v1/realtime/calls/{name}"}, media_type="application/sdp")

    async def hang_up(self, request: Request) -> Response:
        """End a call.

        Raises:
            RequestError: the caller may not, or there is none of this name.
        """
        self._service.access.check(sent_key(request.headers.get("authorization")))
        if (opened := self._open.get(request.path_params["call"])) is None:
            raise RequestError("there is no such call", code="call_not_found")
        await opened[0].close()
        return Response()

    async def _run(self, name: str, call: PeerCall, held: ExitStack) -> None:
        with held:
            try:
                await call.run()
            finally:
                del self._open[name]


async def _read(request: Request) -> tuple[str, dict[str, Any]]:
    """The offer, and the session's settings."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/sdp":
        return (await read_body(request, LARGEST)).decode(errors="replace"), {}
    if kind != "multipart/form-data":
        raise RequestError("the body is no offer", "send SDP as application/sdp", code="unsupported_media_type")
    form: FormData = await request.form(max_files=0, max_fields=2, max_part_size=LARGEST)
    sdp, session = form.get("sdp"), form.get("session", "{}")
    if not isinstance(sdp, str) or not isinstance(session, str):
        raise RequestError("the form has no field sdp", "put the offer there", code="missing_required_parameter")
    try:
        changes = from_json(session, allow_inf_nan=False)
    except ValueError:
        changes = None
    if not isinstance(changes, dict):
        raise RequestError("the field session is no JSON object", "leave it out", code="invalid_json", param="session")
    return sdp, changes
