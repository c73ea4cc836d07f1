"""One client by WebRTC, and the session behind it."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame
from pydantic_core import to_json

from omni2_serve.protocol import server_events as server
from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.server_events import Event
from omni2_serve.protocol.session_config import SessionConfig
from omni2_serve.realtime.endings import until_over
from omni2_serve.realtime.failures import ClientGone, SessionOver
from omni2_serve.realtime.session import RealtimeSession
from omni2_serve.service import Service
from omni2_serve.sound.formats import FORMATS, FULL_SCALE, PCM, Encoder, Floats, from_base64
from omni2_serve.webrtc.loudspeaker import Loudspeaker

CHANNEL = "oai-events"
CONNECT = 30.0  # seconds in which a client must come after it was answered
MOST_MESSAGES = 1_000  # that wait to be read
log = logging.getLogger(__name__)


class PeerCall:
    """A peer connection. The session's sound goes to the loudspeaker, the rest of its events over the data channel.

    What a client of the WebSocket does with its player is done here for the client of the call: it tells the session
    how much of an answer was heard when that is interrupted.

    Args:
        service: what it wants to use.
        config: settings to begin with.
    """

    def __init__(self, service: Service, config: SessionConfig) -> None:
        self._service = service
        self._config = config
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))  # no server is asked for our address
        self._session = RealtimeSession(
            service.host,
            service.limits,
            service.metrics,
            self._send,
            config,
            self._clear_output,
            service.recogniser,
        )
        self._loudspeaker = Loudspeaker(
            lambda response_id: self._tell(server.output_started(response_id)),
            lambda response_id: self._tell(server.output_stopped(response_id)),
        )
        self._microphone: MediaStreamTrack | None = None
        self._channel: RTCDataChannel | None = None
        self._opened = asyncio.Event()
        self._gone = asyncio.Event()
        self._messages: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._source = PCM  # the format in which the session sends the answer
        self._encoder = Encoder(PCM, PCM.rate)  # from that to the loudspeaker's
        self._silenced: str | None = None  # the response whose sound is not played any more
        self._answering: str | None = None  # the response that is made
        self._peer.on("track", self._has_track)
        self._peer.on("datachannel", self._has_channel)
        self._peer.on("connectionstatechange", self._changed)

    async def answer(self, offer: str) -> str:
        """The answer to a client's offer, both SDP.

        Raises:
            RequestError: the offer cannot be read, or is of no call with a microphone and a data channel.
        """
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            if self._microphone is None or self._peer.sctp is None:
                raise ValueError
            self._peer.addTrack(self._loudspeaker)
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except Exception:  # the library raises what its parser meets
            raise RequestError(
                "the offer cannot be answered",
                f"send SDP with one audio track (Opus) and a data channel, {CHANNEL}",
                code="invalid_offer",
            ) from None
        return str(self._peer.localDescription.sdp)

    async def run(self) -> None:
        """From the answer to the end."""
        try:
            async with asyncio.timeout(CONNECT):
                await self._opened.wait()
            await self._converse()
        except (TimeoutError, ClientGone):
            pass
        finally:
            await self.close()

    async def close(self) -> None:
        """Hang up."""
        self._gone.set()
        await self._peer.close()

    # -- the session -----------------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        session = self._session
        log.info("session %s begins by WebRTC", self._config.id)
        try:
            await session.begin()
            own = self._read(), self._hear(), self._left()
            over = await until_over(session, self._service, *own, quiet=self._loudspeaker.quiet)
            if over is not None:
                self._tell(server.error(over.error, None))
        finally:
            await session.close()
            log.info("session %s has ended", self._config.id)

    async def _read(self) -> SessionOver | None:
        while True:
            try:
                wait = await self._session.receive(await self._messages.get())
            except SessionOver as over:
                return over
            await asyncio.sleep(wait)

    async def _hear(self) -> SessionOver | None:
        assert self._microphone is not None
        while True:
            try:
                frame = await self._microphone.recv()
            except MediaStreamError:  # the client's track has ended; it may still type
                await self._gone.wait()
                return None
            assert isinstance(frame, AudioFrame)
            try:
                await self._session.hear(_mono(frame), frame.sample_rate)
            except SessionOver as over:
                return over

    async def _left(self) -> None:
        await self._gone.wait()

    # -- what the session says -------------------------------------------------------------------------------------

    async def _send(self, event: Event) -> None:
        match event["type"]:
            case "response.created":
                self._answering = event["response"]["id"]
                self._source = FORMATS[event["response"]["audio"]["output"]["format"]["type"]]
                self._encoder = Encoder(PCM, self._source.rate)
            case "response.output_audio.delta":
                self._play(event)
                return
            case "response.output_audio.done":
                self._loudspeaker.finish(event["response_id"])
            case "response.done":
                self._answering = None
        self._tell(event)
        if self._gone.is_set():
            raise ClientGone
        if event["type"] == "input_audio_buffer.speech_started" and self._interrupts:
            self._clear_output()

    def _play(self, event: Event) -> None:
        if event["response_id"] != self._silenced:
            sound = self._encoder.encode(self._source.decode(from_base64(event["delta"])))
            self._loudspeaker.add(event["response_id"], event["item_id"], sound)

    @property
    def _interrupts(self) -> bool:
        detection = self._session.config.detection
        return detection is not None and detection.interrupt_response

    def _clear_output(self) -> None:
        """Silence the answer, and tell the session how much of it was heard."""
        self._silenced = self._answering
        answer = self._loudspeaker.clear()
        if answer is None:
            return
        self._tell(server.output_cleared(answer.response_id))
        heard = {"item_id": answer.item_id, "content_index": 0, "audio_end_ms": int(1000 * answer.seconds)}
        self._messages.put_nowait(to_json({"type": "conversation.item.truncate", **heard}))

    def _tell(self, event: Event) -> None:
        """Send an event, unless the client is not there or does not read: then the call ends."""
        channel = self._channel
        if channel is None or channel.readyState != "open" or channel.bufferedAmount > self._service.limits.message:
            self._gone.set()
        else:
            channel.send(to_json(event).decode())

    # -- what the peer connection says -----------------------------------------------------------------------------

    def _has_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and self._microphone is None:
            self._microphone = track

    def _has_channel(self, channel: RTCDataChannel) -> None:
        if channel.label != CHANNEL or self._channel is not None:
            return
        self._channel = channel
        channel.on("message", self._has_message)
        channel.on("close", self._gone.set)
        self._opened.set()

    def _has_message(self, message: str | bytes) -> None:
        if self._messages.qsize() >= MOST_MESSAGES:
            self._gone.set()
        else:
            self._messages.put_nowait(message)

    def _changed(self) -> None:
        if self._peer.connectionState in ("failed", "closed"):
            self._gone.set()


def _mono(frame: AudioFrame) -> Floats:
    """A decoded frame, s16 with its channels interleaved → (n,) float32 in ±1."""
    samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    mono: Floats = samples.mean(axis=1, dtype=np.float32) / np.float32(FULL_SCALE)
    return mono
