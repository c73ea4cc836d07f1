"""A client of the replicas: sessions without turn detection, questions, whole answers, and how a session ends."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

SOON = 300  # seconds of patience with a loaded machine


class Stopping(Exception):
    """The server ends the session, between answers."""


class Talker:
    """A session that is open.

    Attributes:
        name: its id.
        sounds: of the answers that have ended.
        parts: deltas of sound of the answer that runs.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.name = ""
        self.sounds: list[bytes] = []
        self.parts: list[bytes] = []

    async def send(self, event: dict[str, Any]) -> None:
        await self.connection.send(json.dumps(event))

    async def event(self) -> dict[str, Any]:
        """The next one; sound is kept."""
        event: dict[str, Any] = json.loads(await self.connection.recv())
        if event["type"] == "response.output_audio.delta":
            self.parts.append(base64.b64decode(event["delta"]))
        if event["type"] == "response.done":
            assert event["response"]["status"] in ("completed", "incomplete"), event
            self.sounds.append(b"".join(self.parts))
            self.parts.clear()
        return event

    async def until(self, kind: str) -> None:
        """The next event of this type; there is no error before.

        Raises:
            Stopping: instead of it.
        """
        while (event := await self.event())["type"] != kind:
            if event["type"] == "error" and event["error"]["code"] == "server_stopping":
                raise Stopping
            assert event["type"] != "error", event

    async def begin(self, number: int) -> None:
        """Ask a recorded question, and wait for its answer to be announced.

        Raises:
            Stopping: before it was.
        """
        content = [{"type": "input_audio", "audio": question(number)}]
        item = {"type": "message", "role": "user", "content": content}
        try:
            await self.send({"type": "conversation.item.create", "item": item})
            await self.send({"type": "response.create"})
        except ConnectionClosed:  # since the answer before
            raise Stopping from None
        await self.until("response.created")

    async def ask(self, number: int) -> bytes:
        """The sound of the answer to a recorded question.

        Raises:
            Stopping: before there was an answer; what has begun is heard to its end.
        """
        await self.begin(number)
        try:
            await self.until("response.done")
        except Stopping:
            raise AssertionError("an answer was cut off") from None
        return self.sounds[-1]

    async def end(self) -> tuple[list[str], int | None]:
        """The types of the events until the server closes, and its close code."""
        kinds: list[str] = []
        try:
            while True:
                event = await self.event()
                kinds.append(event["error"]["code"] if event["type"] == "error" else event["type"])
        except ConnectionClosed as error:
            return kinds, error.rcvd.code if error.rcvd is not None else None

    async def close(self) -> None:
        await self.connection.close()


def question(number: int) -> str:
    """Half a second of noise, 24 kHz s16le."""
    noise = 3000 * np.random.default_rng(number).standard_normal(12_000)
    return base64.b64encode(noise.astype("<i2").tobytes()).decode()


async def connected(address: str, key: str | None) -> ClientConnection:
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    return await connect(address, additional_headers=headers, max_size=None, open_timeout=SOON)


async def open_session(address: str, key: str | None = None) -> Talker:
    """A session without turn detection.

    Args:
        address: with the model in its query.
        key: where one is wanted.

    Raises:
        InvalidStatus: the server takes none in.
    """
    talker = Talker(await connected(address, key))
    created = await talker.event()
    assert created["type"] == "session.created"
    talker.name = created["session"]["id"]
    audio = {"input": {"turn_detection": None}}
    await talker.send({"type": "session.update", "session": {"type": "realtime", "audio": audio}})
    await talker.until("session.updated")
    return talker


async def open_when_free(address: str, key: str | None = None) -> Talker:
    """A session as soon as there is a place."""
    async with asyncio.timeout(SOON):
        while True:
            try:
                return await open_session(address, key)
            except (InvalidStatus, ConnectionClosed, Stopping, OSError):
                await asyncio.sleep(0.2)


async def refusal(address: str, key: str | None = None) -> tuple[int, str | None]:
    """The status with which a session is not let in, and its Retry-After."""
    try:
        await (await connected(address, key)).close()
    except InvalidStatus as refused:
        return refused.response.status_code, refused.response.headers.get("Retry-After")
    raise AssertionError("it was let in")
