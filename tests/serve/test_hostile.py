"""Clients that do what they should not: the server stays up, others notice nothing, and nothing is left behind."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import socket
import sys
import threading
from collections import deque
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine import Engine
from omni2_engine.live import events as live
from omni2_serve.limits import ServiceLimits
from omni2_serve.metrics import Metrics
from omni2_serve.protocol.client_events import TYPES
from omni2_serve.protocol.session_config import SessionConfig
from omni2_serve.realtime.session import RealtimeSession
from omni2_serve.sound.pace import Pace

from ..waiting import eventually
from .client import check
from .scripted import METRICS, Script, chunk

NAMES = st.sampled_from(["item_a", "item_b", "root", ""])
SOUND = st.binary(max_size=4_000).map(lambda data: base64.b64encode(data).decode())
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | NAMES
)
FIELDS = """type session audio input output format turn_detection voice speed instructions item id role content text
response item_id content_index audio_end_ms previous_item_id metadata conversation max_output_tokens"""
WORDS = st.sampled_from(FIELDS.split())
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(), inner, max_size=4),
    max_leaves=12,
)
PART = st.one_of(
    st.fixed_dictionaries({"type": st.just("input_text"), "text": st.text(max_size=20)}),
    st.fixed_dictionaries({"type": st.just("input_audio"), "audio": SOUND}),
    st.fixed_dictionaries({"type": st.just("output_text"), "text": st.text(max_size=20)}),
    st.fixed_dictionaries({"type": st.just("output_audio"), "transcript": st.text(max_size=20)}),
)
ITEM = st.fixed_dictionaries(
    {"type": st.just("message"), "role": st.sampled_from(["user", "system", "assistant"]), "content": st.lists(PART)},
    optional={"id": NAMES},
)
DETECTION = st.sampled_from([None, {"type": "server_vad"}, {"type": "semantic_vad", "eagerness": "low"}])
FORMAT = st.sampled_from([{"type": kind} for kind in ("audio/pcm", "audio/pcmu", "audio/pcma")])
EVENT = st.one_of(
    st.fixed_dictionaries({"type": st.just("input_audio_buffer.append"), "audio": SOUND}),
    st.fixed_dictionaries(
        {"type": st.just("conversation.item.create"), "item": ITEM}, optional={"previous_item_id": NAMES}
    ),
    st.fixed_dictionaries(
        {"type": st.just("session.update")},
        optional={
            "session": st.fixed_dictionaries(
                {
                    "audio": st.fixed_dictionaries(
                        {"input": st.fixed_dictionaries({"format": FORMAT, "turn_detection": DETECTION})}
                    )
                }
            )
        },
    ),
    st.fixed_dictionaries(
        {"type": st.just("conversation.item.truncate"), "item_id": NAMES, "content_index": st.just(0)},
        optional={"audio_end_ms": st.integers(-1, 2_000)},
    ),
    st.fixed_dictionaries({"type": st.sampled_from(TYPES)}, optional={"item_id": NAMES, "event_id": NAMES}),
    st.fixed_dictionaries({"type": st.sampled_from(TYPES)}).flatmap(
        lambda event: st.dictionaries(WORDS, JSON, max_size=4).map(lambda more: event | more)
    ),
)
FIRST = chunk(0, seconds=0.02)
SPOKEN = st.sampled_from(
    [
        (),
        (live.SpeechBegan(100, 0), live.TurnBegun(0, True), live.TurnTakenBack(0)),
        (live.SpeechBegan(100, 0), live.SpeechEnded(200, 300), live.Committed(0, 300, True)),
        (live.Committed(0, 300, False),),
        (live.Failed(None, ValueError("x")),),
        (live.TurnAdded(),),
    ]
)
MADE = st.lists(st.sampled_from([live.TextWritten(0, "Yes. "), live.SoundMade(0, chunk(1, seconds=0.02))]), max_size=3)
BEGUN = st.sampled_from([(), (live.SoundMade(0, FIRST),), (live.SoundMade(0, replace(FIRST, start_in=0.001)),)])
ENDED = st.sampled_from(
    [
        (live.Finished(0, "end", METRICS),),
        (live.Finished(0, "end", METRICS), live.Interrupted(0, 0.01)),
        (live.SpeechBegan(100, 0), live.Interrupted(0, 0.01), live.Finished(0, "cancelled", METRICS)),
        (live.Failed(0, ValueError("x")),),
    ]
)
ANSWERED = st.tuples(st.just((live.AnswerBegun(0),)), BEGUN, MADE, ENDED)
HAPPENING = st.lists(st.tuples(SPOKEN) | ANSWERED, max_size=5).map(
    lambda turns: [event for turn in turns for part in turn for event in part]
)
OPENING = '{"type": "input_audio_buffer.append", "audio": "AAAAAA=="}'


def played(steps: list[Any], happening: list[live.Event] = []) -> list[dict[str, Any]]:  # noqa: B006
    """What a session sends for these messages; a number stands for as many events of its conversation."""
    coming = deque(happening)
    sent: list[dict[str, Any]] = []
    script = Script()

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    async def session() -> None:
        limits = ServiceLimits(ahead=1e9)
        config = SessionConfig(model="m").updated({}, script.host.voices)
        session = RealtimeSession(script.host, limits, Metrics(), send, config)
        await session.begin()
        for step in steps:
            if not isinstance(step, int):
                await session.receive(step)
            elif script.conversations:
                script.conversations[-1].happens(*(coming.popleft() for _ in range(min(step, len(coming)))))
                for _ in range(4 * step):
                    await asyncio.sleep(0)
        assert not session.failed.done(), session.failed
        await session.close()

    asyncio.run(session())
    return sent


@given(st.lists(st.binary(max_size=50) | st.text(max_size=50) | JSON.map(json.dumps), max_size=8))
@settings(max_examples=150)
def test_any_bytes_and_any_json(messages: list[Any]) -> None:
    sent = played(messages)
    assert [event["type"] for event in sent] == ["session.created"] + ["error"] * len(messages)
    for event in sent:
        check(event)


@given(st.lists(EVENT.map(json.dumps) | st.integers(1, 6), max_size=25), HAPPENING)
@settings(max_examples=250)
def test_any_events_in_any_order(steps: list[Any], happening: list[live.Event]) -> None:
    """Every event has the fields that its type wants, and every response that begins has ended before the next."""
    open_response = None
    for event in played([OPENING, *steps], happening):
        check(event)
        if event["type"] == "response.created":
            assert open_response is None
            open_response = event["response"]["id"]
        elif event["type"] == "response.done":
            assert open_response == event["response"]["id"]
            open_response = None
        elif "response_id" in event:
            assert event["response_id"] == open_response


def test_nesting_without_end_is_refused() -> None:
    sent = played(['{"type": "session.update", "session": ' + '{"audio": ' * 100_000])
    assert sent[-1]["error"]["code"] == "invalid_json"


def test_pages_of_sound_are_slowed_down() -> None:
    """A sender at 100 × real time: after what it may be ahead, it is read as fast as people speak."""
    now = 0.0
    pace = Pace(ahead=10.0, clock=lambda: now)
    sent = 0.0
    while now < 100.0:
        pace.add(1.0)
        sent += 1.0
        now += 0.01 + pace.wait()
    assert 100 <= sent <= 10 + 1.1 * 100 + 1


def test_a_client_that_speaks_is_not_slowed_down() -> None:
    now = 0.0
    pace = Pace(ahead=10.0, clock=lambda: now)
    for _ in range(1000):
        pace.add(0.1)
        assert pace.wait() == 0
        now += 0.1


def test_a_sender_that_hurries_waits(new_server: Any) -> None:
    """Its events are taken in their order all the same."""
    server = new_server(ServiceLimits(ahead=0.2))

    async def connected() -> None:
        async with server.client() as client:
            await client.push_to_talk()
            await client.append(bytes(24_000))
            await client.send("input_audio_buffer.commit")
            await client.until("input_audio_buffer.committed")

    asyncio.run(connected())


def test_a_reader_that_stops_is_given_up(new_server: Any) -> None:
    script = Script()
    server = new_server(ServiceLimits(unread=0.2), host=script.host)

    async def connected() -> None:
        async with server.client(max_queue=1, close_timeout=0.1) as client:
            await client.type("one")
            await client.until("conversation.item.done")
            (conversation,) = script.conversations
            conversation.happens(live.AnswerBegun(0))
            conversation.happens(*(live.SoundMade(0, chunk(n, seconds=10.0)) for n in range(200)))
            while server.service.sessions or server.leftovers:  # it reads nothing meanwhile
                await asyncio.sleep(0.01)

    asyncio.run(connected())


def test_sockets_that_vanish_leave_nothing(server: Any, served_engine: Engine) -> None:
    """Half-closed, reset, and closed in the middle of a handshake, of a frame and of an answer, which is counted."""
    host, port = server.address.split(":")
    shake = (
        f"GET /v1/realtime HTTP/1.1\r\nHost: {server.address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()

    def raw(data: bytes, wait: bool, way: str) -> None:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(data)
            if wait:
                connection.recv(1000)
            if way == "half":
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
            elif way == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    for data, wait in (
        (b"", False),
        (shake[:40], False),
        (shake, True),
        (shake + b"\x81\xfe\x10", True),
        (b"\x16\x03\x01", False),
    ):
        for way in ("half", "reset", "close"):
            raw(data, wait, way)

    async def in_an_answer() -> None:
        async with server.client() as client:
            await client.type("one")
            await client.send("response.create")
            await client.until("response.created")
            client.socket.transport.abort()

    for _ in range(3):
        asyncio.run(in_an_answer())

    async def left() -> None:
        while server.service.sessions or server.leftovers or served_engine.waiting:
            await asyncio.sleep(0.01)
        async with server.client() as client:
            assert (await client.ask("one"))["status"] == "completed"
        (counted,) = server.service.metrics.turns.collect()
        assert sum(sample.value for sample in counted.samples if sample.name == "omni2_turns_total") == 4

    asyncio.run(left())


WARM, SESSIONS = 20, 500
SOUND = 24_000  # bytes of half a second, 24 kHz s16le
POOLS = ("asyncio_", "omni2-helper")  # threads that are kept for the next; a pool has a few at most


def resident_memory() -> int:
    """Bytes of memory that this process has; 0 where the system does not say it as Linux does."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm", encoding="ascii") as counts:
        return int(counts.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_sessions_leave_nothing(server: Any, served_engine: Engine) -> None:
    """No thread, task, descriptor or memory of the engine; less than one object of Python each, and no sound."""

    async def one() -> None:
        async with server.client() as client:
            assert (await client.ask("one", max_output_tokens=1))["status"] != "failed"

    async def several(sessions: int) -> None:
        for _ in range(sessions):
            await one()
        while server.service.sessions or server.leftovers or server.server.server_state.tasks:
            await asyncio.sleep(0.01)

    def held() -> dict[str, int]:
        gc.collect()
        threads = [thread.name for thread in threading.enumerate() if not thread.name.startswith(POOLS)]
        return {
            "threads": len(threads),
            "tasks": server.tasks,
            "descriptors": len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0,
            "sessions of the engine": len(served_engine._sessions),
            "bytes of the engine": served_engine.states.budget.used,
        }

    asyncio.run(several(WARM))
    before, resident, objects = held(), resident_memory(), sys.getallocatedblocks()
    asyncio.run(several(SESSIONS))
    left: dict[str, int] = {}

    def nothing() -> bool:
        """A thread may be about to let go of the last session."""
        left.clear()
        left.update({name: count for name, count in held().items() if count > before[name]})
        return not left and sys.getallocatedblocks() - objects < SESSIONS

    assert eventually(nothing, left)
    assert resident_memory() - resident < SESSIONS * SOUND


def test_others_hear_the_same_beside_a_hostile_client(server: Any) -> None:
    async def ask() -> bytes:
        async with server.client() as client:
            done = await client.ask("what is it", max_output_tokens=8)
            return client.sound(done["id"])

    async def rage(client: Any) -> None:
        while True:
            for message in (b"\xff\xff", "{", '{"type": "response.cancel"}', '{"type": "response.create"}'):
                await client.socket.send(message)
            await client.append(bytes(9_600))
            await client.send("input_audio_buffer.commit")
            await client.next()

    async def both() -> bytes:
        async with server.client(close_timeout=0.1) as client:  # it has not read all it was sent
            await client.update(max_output_tokens=2)
            raging = asyncio.create_task(rage(client))
            sound = await ask()
            raging.cancel()
            await asyncio.wait([raging])
            return sound

    quiet = asyncio.run(ask())
    assert asyncio.run(both()) == quiet != b""
