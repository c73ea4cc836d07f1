"""Calls by WebRTC, with aiortc as the client: Opus both ways, events over the data channel."""

from __future__ import annotations

import asyncio
import fractions
import json
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("aiortc", reason="WebRTC is of the extra webrtc")

import aioice.ice
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame

from omni2_engine import Engine
from omni2_engine.audio.source import read_native
from omni2_engine.live import events as live
from omni2_serve.access import Access
from omni2_serve.limits import ServiceLimits
from omni2_serve.webrtc import call as peer_call

from ..waiting import SOON, eventually
from .client import check, pcm
from .scripted import METRICS, Script, chunk

RATE = 24_000
FRAME = RATE // 50
LOUD = 0.02  # root mean square of 20 ms; Opus turns silence into little
KEY = "a-key-of-the-webrtc-tests"

if not aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True):
    pytest.skip("this machine has no address but loopback, which ICE leaves out", allow_module_level=True)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a call may take long to come, and its signs of life come late."""
    monkeypatch.setattr(peer_call, "CONNECT", SOON)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 1000)


class Speech(MediaStreamTrack):
    """Says what it was given, then is silent; 20 ms every 20 ms."""

    kind = "audio"

    def __init__(self, sound: bytes = b"") -> None:
        super().__init__()
        self._waiting = bytearray(sound)
        self._frames = 0

    async def recv(self) -> AudioFrame:
        if self._frames == 0:
            self._began = asyncio.get_running_loop().time()
        await asyncio.sleep(self._began + 0.02 * self._frames - asyncio.get_running_loop().time())
        data = bytes(self._waiting[: 2 * FRAME])
        del self._waiting[: 2 * FRAME]
        frame = AudioFrame(format="s16", layout="stereo", samples=FRAME)
        frame.planes[0].update(np.frombuffer(data.ljust(2 * FRAME, b"\0"), np.int16).repeat(2))
        frame.sample_rate, frame.time_base = RATE, fractions.Fraction(1, RATE)
        frame.pts = self._frames * FRAME
        self._frames += 1
        return frame


class Caller:
    """A call from the client's side.

    Attributes:
        events: all that came over the data channel.
        levels: of every 20 ms that was heard.
    """

    def __init__(self, peer: RTCPeerConnection, sound: bytes) -> None:
        self.events: list[dict[str, Any]] = []
        self.levels: list[float] = []
        self.location = ""
        self.peer = peer
        self._arrived: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        peer.addTrack(Speech(sound))
        self.channel = peer.createDataChannel("oai-events")
        self.channel.on("message", lambda message: self._arrived.put_nowait(json.loads(message)))
        peer.on("track", lambda track: self._keep(asyncio.create_task(self._hear(track))))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._hearing = task

    async def _hear(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            assert isinstance(frame, AudioFrame)
            samples = frame.to_ndarray().astype(np.float64) / 32_768
            self.levels.append(float(np.sqrt(np.mean(samples**2))))

    def send(self, kind: str, **fields: Any) -> None:
        self.channel.send(json.dumps({"type": kind, **fields}))

    async def until(self, kind: str) -> dict[str, Any]:
        """Take events up to one of this kind; all fit the types of `openai`."""
        while True:
            event = await self._arrived.get()
            check(event)
            self.events.append(event)
            if event["type"] == kind:
                return event
            assert event["type"] != "error", event

    async def hears(self, loud: bool, frames: int = 5) -> None:
        """Until the last frames were loud, or silent."""
        while len(self.levels) < frames or any((level > LOUD) != loud for level in self.levels[-frames:]):
            await asyncio.sleep(0.01)

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]


async def offered(peer: RTCPeerConnection, address: str, key: str = "") -> httpx.Response:
    """Make an offer."""
    await peer.setLocalDescription(await peer.createOffer())
    headers = {"Content-Type": "application/sdp"} | ({"Authorization": f"Bearer {key}"} if key else {})
    async with httpx.AsyncClient(timeout=SOON) as http:
        url = f"http://{address}/v1/realtime/calls"
        return await http.post(url, content=peer.localDescription.sdp, headers=headers)


@asynccontextmanager
async def calling(address: str, sound: bytes = b"", key: str = "") -> AsyncIterator[Caller]:
    """A caller that has been greeted."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    caller = Caller(peer, sound)
    try:
        answer = await offered(peer, address, key)
        assert answer.status_code == 201, answer.text
        caller.location = answer.headers["Location"]
        await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        await caller.until("session.created")
        yield caller
    finally:
        await peer.close()


@pytest.fixture
def call(server: Any) -> Callable[..., None]:
    """Runs a caller's side."""

    def run(talk: Callable[[Caller], Awaitable[None]], sound: bytes = b"", at: Any = server) -> None:
        async def connected() -> None:
            async with calling(at.address, sound) as caller:
                await talk(caller)

        asyncio.run(connected())

    return run


def test_a_spoken_turn(call: Any, question: Path) -> None:
    async def talk(caller: Caller) -> None:
        await caller.hears(loud=True)
        await caller.until("output_audio_buffer.stopped")
        kinds = [kind for kind in caller.kinds() if not kind.endswith(".delta")]
        assert "response.output_audio.delta" not in caller.kinds(), "sound goes over the track"
        order = [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "response.created",
            "response.content_part.added",
            "response.output_audio.done",
            "response.done",
            "output_audio_buffer.stopped",
        ]
        places = [kinds.index(kind) for kind in order]
        assert places == sorted(places)
        assert kinds.index("response.content_part.added") < kinds.index("output_audio_buffer.started")
        response = next(event for event in caller.events if event["type"] == "response.done")["response"]
        assert response["status"] == "completed"
        assert caller.events[-1]["response_id"] == response["id"]

    call(talk, pcm(*read_native(question)))


def sound(index: int) -> live.SoundMade:
    """Half a second of a tone: Opus leaves a constant out."""
    silent = chunk(index, spoken="Well,")
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(silent.pcm)) / RATE)
    return live.SoundMade(0, replace(silent, pcm=tone.astype(np.float32)))


def begin() -> tuple[live.Event, ...]:
    """A turn whose answer is ten seconds of sound so far, and more to come."""
    return (
        live.SpeechBegan(at=16_000, begin=11_200),
        live.SpeechEnded(at=32_000, decided=40_000),
        live.Committed(begin=11_200, end=33_600, answered=True),
        live.TurnBegun(0, speculative=False),
        live.AnswerBegun(0),
        live.TextWritten(0, "Well, I think so."),
        *(sound(index) for index in range(20)),
    )


@pytest.fixture
def scripted(new_server: Any) -> tuple[Any, Script]:
    script = Script()
    return new_server(host=script.host), script


async def conversation_of(script: Script) -> Any:
    """It is opened by the first sound."""
    while not script.conversations:
        await asyncio.sleep(0.01)
    return script.conversations[0]


def test_speech_interrupts_an_answer_and_the_model_forgets_what_was_not_heard(call: Any, scripted: Any) -> None:
    server, script = scripted

    async def talk(caller: Caller) -> None:
        conversation = await conversation_of(script)
        conversation.happens(*begin())
        await caller.until("output_audio_buffer.started")
        await caller.hears(loud=True)
        conversation.happens(live.SpeechBegan(at=64_000, begin=60_000))
        assert 0.19 < max(caller.levels) < 0.23, "0.3 / √2, as it was made"
        cleared = await caller.until("output_audio_buffer.cleared")
        truncated = await caller.until("conversation.item.truncated")
        conversation.happens(live.Interrupted(0, heard=0.4), live.Finished(0, "cancelled", METRICS))
        done = (await caller.until("response.done"))["response"]
        await caller.hears(loud=False)
        assert done["status_details"]["reason"] == "turn_detected" and cleared["response_id"] == done["id"]
        assert truncated["item_id"] == done["output"][0]["id"]
        heard = truncated["audio_end_ms"] / 1000
        assert 0.1 <= heard < 10, "seconds: more than were heard before, less than were made"
        assert ("truncate", {"heard": heard}) in conversation.calls

    call(talk, at=server)


def test_a_client_clears_what_is_played(call: Any, scripted: Any) -> None:
    server, script = scripted

    async def talk(caller: Caller) -> None:
        conversation = await conversation_of(script)
        conversation.happens(*begin())
        await caller.hears(loud=True)
        caller.send("response.cancel")
        caller.send("output_audio_buffer.clear")
        await caller.until("output_audio_buffer.cleared")
        await caller.until("conversation.item.truncated")
        conversation.happens(sound(20), live.Finished(0, "cancelled", METRICS))
        await caller.until("response.done")
        await caller.hears(loud=False, frames=20)
        caller.send("output_audio_buffer.clear")  # nothing is played: nothing happens
        caller.send("session.update", session={"type": "realtime"})
        await caller.until("session.updated")
        assert caller.kinds().count("output_audio_buffer.cleared") == 1

    call(talk, at=server)


def test_what_the_client_hears_reaches_the_model(call: Any, scripted: Any) -> None:
    """Two seconds of a tone come as two seconds, as loud as they were."""
    server, script = scripted
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)

    async def talk(caller: Caller) -> None:
        conversation = await conversation_of(script)
        while conversation.fed < 3 * 48_000:
            await asyncio.sleep(0.01)
        heard = np.concatenate(conversation.frames)
        loud = np.abs(heard) > 0.1
        assert 1.5 * 48_000 * 0.85 < loud.sum() < 2.1 * 48_000  # a sine is above a fifth of its peak for 87 % of it
        assert 0.4 < np.sqrt(2 * np.mean(heard[loud] ** 2)) < 0.6

    call(talk, (tone * 32_767).astype("<i2").tobytes(), at=server)


def test_what_nobody_commits_is_not_kept_without_end(call: Any, new_server: Any) -> None:
    script, most = Script(), 0.5
    server = new_server(host=script.host, limits=ServiceLimits(uncommitted=most, drain=2.0))

    async def talk(caller: Caller) -> None:
        caller.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        await caller.until("session.updated")
        conversation = await conversation_of(script)
        for _ in range(3):
            stood = conversation.fed
            caller.send("input_audio_buffer.clear")
            await caller.until("input_audio_buffer.cleared")
            before = conversation.fed
            while conversation.fed == stood:  # it goes on
                await asyncio.sleep(0.01)
            await asyncio.sleep(3 * most)
            assert conversation.fed - before < (most + 0.1) * 48_000

    call(talk, at=server)


def test_a_wrong_event_is_answered_and_the_call_goes_on(call: Any) -> None:
    async def talk(caller: Caller) -> None:
        for message in ("not JSON", b"\xff\x00", '{"type": "nothing.known"}'):
            caller.channel.send(message)
            assert (await caller.until("error"))["error"]["type"] == "invalid_request_error"
        caller.send("session.update", session={"type": "realtime"})
        await caller.until("session.updated")

    call(talk)


def test_a_server_that_stops_ends_its_calls(call: Any, server: Any) -> None:
    async def talk(caller: Caller) -> None:
        server.drain()
        assert (await caller.until("error"))["error"]["code"] == "server_stopping"

    call(talk)
    server.join()


def test_a_server_that_stops_plays_its_answers_to_their_end(call: Any, new_server: Any) -> None:
    """They are made long before they are heard."""
    script = Script()
    server = new_server(host=script.host, limits=ServiceLimits(drain=60.0))

    async def talk(caller: Caller) -> None:
        conversation = await conversation_of(script)
        conversation.happens(*begin()[:10], live.Finished(0, "end", METRICS))  # two seconds of sound
        await caller.until("response.done")
        server.drain()
        assert (await caller.until("error"))["error"]["code"] == "server_stopping"
        assert "output_audio_buffer.stopped" in caller.kinds()
        async with asyncio.timeout(SOON):
            while sum(level > LOUD for level in caller.levels) < 95:  # of a hundred frames
                await asyncio.sleep(0.01)

    call(talk, at=server)
    server.join()


def test_without_the_extra_a_call_is_told_so(new_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("omni2_serve.webrtc")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiortc", None)
    answer = httpx.post(f"http://{new_server().address}/v1/realtime/calls", content="v=0", timeout=SOON)
    assert answer.status_code == 501 and "omni2-engine[webrtc]" in answer.json()["error"]["message"]


def test_hanging_up_from_either_side_gives_the_place_back(new_server: Any) -> None:
    server = new_server(limits=ServiceLimits(sessions=1, drain=2.0))

    async def talk() -> None:
        async with calling(server.address):
            full = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            Caller(full, b"")
            assert (await offered(full, server.address)).status_code == 503
            await full.close()
        while server.service.sessions:
            await asyncio.sleep(0.01)
        async with calling(server.address) as caller, httpx.AsyncClient(timeout=SOON) as http:
            assert (await http.post(f"http://{server.address}{caller.location}/hangup")).status_code == 200
            while server.service.sessions:
                await asyncio.sleep(0.01)
            assert (await http.post(f"http://{server.address}{caller.location}/hangup")).status_code == 404

    asyncio.run(talk())


def test_calls_leave_no_thread_and_no_memory(server: Any, served_engine: Engine, question: Path) -> None:
    sound = pcm(*read_native(question))[: 2 * RATE]

    async def one() -> None:
        async with calling(server.address, sound) as caller:
            await caller.until("input_audio_buffer.speech_started")
        while server.service.sessions:
            await asyncio.sleep(0.01)

    def held() -> tuple[Counter[str], int]:
        names = Counter(thread.name for thread in threading.enumerate())
        for name in [name for name in names if name.startswith("asyncio_")]:  # the loop's pool grows to its bound
            del names[name]
        return names, served_engine.states.budget.used

    for _ in range(2):
        asyncio.run(one())
    assert eventually(lambda: not served_engine.states.budget.used)  # a thread may be about to give it back
    before = held()
    for _ in range(4):
        asyncio.run(one())
    assert eventually(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))


@pytest.mark.parametrize("body", ["", "v=0", "not SDP at all\r\n" * 100, "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"])
def test_offers_that_make_no_sense_are_refused(server: Any, body: str) -> None:
    url = f"http://{server.address}/v1/realtime/calls"
    offer = {"Content-Type": "application/sdp"}
    with httpx.Client(timeout=SOON) as http:
        answer = http.post(url, content=body, headers=offer)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_offer"
        assert http.post(url, content=b"v" * 300_000, headers=offer).status_code == 413
        assert http.post(url, json={}).status_code == 415
        assert http.post(url, files={"session": (None, "{}")}).json()["error"]["code"] == "missing_required_parameter"
    assert server.service.sessions == 0


def test_the_key_and_the_session_of_a_call(new_server: Any) -> None:
    """As `openai` sends it: a form with the offer and the session."""
    from openai import AsyncOpenAI

    server = new_server(access=Access(keys=[KEY]))

    async def talk() -> None:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        caller = Caller(peer, b"")
        assert (await offered(peer, server.address, "another-key-altogether")).status_code == 401
        client = AsyncOpenAI(api_key=KEY, base_url=f"http://{server.address}/v1", timeout=SOON)
        answer = await client.realtime.calls.create(
            sdp=peer.localDescription.sdp,
            session={"type": "realtime", "audio": {"input": {"turn_detection": None}}},
        )
        await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        created = await caller.until("session.created")
        assert created["session"]["audio"]["input"]["turn_detection"] is None
        await peer.close()

    asyncio.run(talk())
