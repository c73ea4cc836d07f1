"""A plain client of the Realtime interface. It checks all that it is sent against the types of the `openai` package."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import numpy as np
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket

from ..waiting import SOON

KINDS = {
    kind.model_fields["type"].annotation.__args__[0]: TypeAdapter(kind)
    for kind in get_args(get_args(RealtimeServerEvent)[0])
}
BESIDE = {"object", "id", "expires_at"}  # of a session, shown by OpenAI's server and left out of the package's type


def check(event: dict[str, Any]) -> None:
    """Every field is of its type, and there is none that the types do not know."""
    assert event["type"] in KINDS, f"no event has the type {event['type']}"
    parsed = KINDS[event["type"]].validate_python(event, strict=True)
    assert unknown_fields(parsed) <= BESIDE, (event["type"], unknown_fields(parsed))


def unknown_fields(value: Any) -> set[str]:
    if isinstance(value, BaseModel):
        own = set(value.model_extra or {})
        return own.union(*(unknown_fields(getattr(value, name)) for name in type(value).model_fields))
    if isinstance(value, list):
        return set().union(*map(unknown_fields, value))
    return set()


class Client:
    """Events in and out.

    Attributes:
        events: all that came.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def next(self) -> dict[str, Any]:
        event = json.loads(await self.socket.recv())
        check(event)
        self.events.append(event)
        return event

    async def until(self, kind: str) -> dict[str, Any]:
        """Take events up to one of this kind."""
        while (event := await self.next())["type"] != kind:
            assert event["type"] != "error", event
        return event

    async def error(self) -> dict[str, Any]:
        """Take events up to an error."""
        while (event := await self.next())["type"] != "error":
            pass
        return event["error"]

    async def update(self, **session: Any) -> dict[str, Any]:
        """Change the session's settings, and see them."""
        await self.send("session.update", session={"type": "realtime", **session})
        return (await self.until("session.updated"))["session"]

    async def push_to_talk(self, **session: Any) -> dict[str, Any]:
        """Without turn detection."""
        return await self.update(audio={"input": {"turn_detection": None}}, **session)

    async def append(self, sound: bytes, piece: int = 9600) -> None:
        for start in range(0, len(sound), piece):
            await self.send("input_audio_buffer.append", audio=base64.b64encode(sound[start : start + piece]).decode())

    async def type(self, text: str, **fields: Any) -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.send("conversation.item.create", item=item | fields)

    async def ask(self, text: str, **response: Any) -> dict[str, Any]:
        """A typed turn to its end."""
        await self.type(text)
        await self.send("response.create", **({"response": response} if response else {}))
        return (await self.until("response.done"))["response"]

    def kinds(self, since: int = 0) -> list[str]:
        return [event["type"] for event in self.events[since:]]

    def sound(self, response_id: str) -> bytes:
        """All sound of a response."""
        return b"".join(
            base64.b64decode(event["delta"])
            for event in self.events
            if event["type"] == "response.output_audio.delta" and event["response_id"] == response_id
        )

    def transcript(self, response_id: str) -> str:
        return "".join(
            event["delta"]
            for event in self.events
            if event["type"] == "response.output_audio_transcript.delta" and event["response_id"] == response_id
        )


@asynccontextmanager
async def connect(address: str, key: str | None = None, **options: Any) -> AsyncIterator[Client]:
    """A client that has been greeted."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= options.pop("headers", {})
    patient = {"open_timeout": SOON, "ping_interval": None}  # a busy machine is not a broken one
    url = f"ws://{address}/v1/realtime?model=any"
    async with open_socket(url, additional_headers=headers, **(patient | options)) as socket:
        client = Client(socket)
        await client.until("session.created")
        yield client


def pcm(samples: np.ndarray[Any, Any], rate: int) -> bytes:
    """Samples in ±1 → 16 bits at 24 kHz."""
    import soxr

    return np.rint(np.clip(soxr.resample(samples, rate, 24_000), -1, 1) * 32767).astype("<i2").tobytes()
