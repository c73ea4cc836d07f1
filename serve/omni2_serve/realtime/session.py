"""A Realtime session: what a client asks for → calls of a live conversation; what happens there → its events.

No socket is known here. Two tasks come in: the one that reads the client's messages (`receive`) and the one that takes
the conversation's events (`_pump`). A lock lets one of them in at a time, so that each event is handled whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from omni2_engine.errors import CapacityError
from omni2_engine.live.conversation import LiveConversation
from omni2_serve.host import Host
from omni2_serve.limits import ServiceLimits
from omni2_serve.metrics import Metrics
from omni2_serve.protocol import client_events as client
from omni2_serve.protocol import server_events as server
from omni2_serve.protocol.session_config import SessionConfig
from omni2_serve.realtime.answer import Send
from omni2_serve.realtime.conversation import SessionConversation
from omni2_serve.realtime.failures import TRY_LATER, ClientGone, SessionOver, in_words
from omni2_serve.realtime.input_buffer import InputBuffer
from omni2_serve.realtime.model_events import ModelEvents
from omni2_serve.realtime.requests import ClientRequests
from omni2_serve.realtime.state import RealtimeState
from omni2_serve.realtime.transcripts import Transcripts
from omni2_serve.recogniser.base import Recogniser
from omni2_serve.sound.formats import Floats


class RealtimeSession:
    """One client's session.

    Args:
        host: the model.
        limits: see `ServiceLimits`.
        metrics: counts what happens.
        send: takes an event to the client, and may wait for it.
        config: the settings to begin with.
        clear_output: silences what plays the answers, where that is the server's part.
        recogniser: writes down what the user says; None for none.

    Attributes:
        failed: gets the exception that ends the session from within.
    """

    def __init__(
        self,
        host: Host,
        limits: ServiceLimits,
        metrics: Metrics,
        send: Send,
        config: SessionConfig,
        clear_output: Callable[[], None] | None = None,
        recogniser: Recogniser | None = None,
    ) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send = send
        self._lock = asyncio.Lock()
        self._state = state = RealtimeState(config)
        self._conversation = SessionConversation(host, state)
        self._input_buffer = InputBuffer(limits, state, self._conversation)
        self._transcripts = Transcripts(recogniser, metrics, state, send, self._lock, self.failed)
        name = None if recogniser is None else recogniser.name
        self._requests = ClientRequests(host, name, state, self._conversation, self._input_buffer, send, clear_output)
        self._events = ModelEvents(
            host, metrics, state, self._conversation, self._transcripts, send, self._lock, self.failed
        )
        self._pumped: LiveConversation | None = None
        self._pump_task: asyncio.Task[None] | None = None

    @property
    def config(self) -> SessionConfig:
        """The settings in force."""
        return self._state.config

    @property
    def idle(self) -> asyncio.Event:
        """Set while no answer is made or owed."""
        return self._state.idle

    async def begin(self) -> None:
        """Say hello."""
        await self._send(server.session_created(self.config))

    async def receive(self, message: str | bytes) -> float:
        """Do what the client asks for; it is told what is wrong with it.

        Returns:
            Seconds to wait before the next message is read.

        Raises:
            SessionOver: it cannot go on.
        """
        try:
            event = client.parse(message)
        except client.BadEvent as bad:
            await self._send(server.error(bad.error, bad.event_id))
            return 0.0
        async with self._lock:
            try:
                await self._requests.handle(event)
            except CapacityError as error:
                raise SessionOver(TRY_LATER, in_words(error)) from None
            except ClientGone:
                raise
            except Exception as error:
                await self._send(server.error(in_words(error), event.event_id))
            finally:
                self._take_events()
        return self._input_buffer.pace.wait()

    async def hear(self, samples: Floats, rate: int) -> None:
        """Sound that comes by itself, as that of a call does.

        What comes faster than it can be spoken is left out, and so is what is not committed: see `ServiceLimits`.

        Args:
            samples: (n,) in ±1.
            rate: of the samples, Hz.

        Raises:
            SessionOver: there is no room for a conversation.
        """
        async with self._lock:
            try:
                self._input_buffer.hear(samples, rate)
            except CapacityError as error:
                raise SessionOver(TRY_LATER, in_words(error)) from None
            self._take_events()

    async def close(self) -> None:
        """Give back what the session holds of the engine."""
        if self._state.answer is not None:
            self._state.answer.stop()
        if self._pump_task is not None:
            self._pump_task.cancel()
            await asyncio.wait([self._pump_task])
        await self._transcripts.close()
        await self._conversation.close()
        if not self.failed.cancel():
            self.failed.exception()  # it has been told

    def _take_events(self) -> None:
        """Take those of the conversation, which may have been begun just now."""
        if self._conversation.current is not None and self._conversation.current is not self._pumped:
            self._pumped = self._conversation.current
            self._pump_task = asyncio.create_task(self._pump(self._pumped))

    async def _pump(self, conversation: LiveConversation) -> None:
        """Take the conversation's events until it ends, or another takes its place."""
        try:
            async for event in conversation:
                async with self._lock:
                    if conversation is not self._conversation.current:
                        return
                    await self._events.happened(event)
        except Exception as error:
            if not self.failed.done():
                self.failed.set_exception(error)
