"""A Realtime session: what a client asks for → calls of a live conversation; what happens there → its events.

No socket is known here. Two tasks come in: the one that reads the client's messages (`receive`) and the one that takes
the conversation's events (`_pump`). A lock lets one of them in at a time, so that each event is handled whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, assert_never

import numpy as np

from omni2_engine.errors import BusyError, CapacityError, Omni2Error
from omni2_engine.live import events as live
from omni2_engine.live.conversation import LiveConversation
from omni2_engine.turn.options import TurnOptions
from omni2_serve.host import Host
from omni2_serve.limits import ServiceLimits
from omni2_serve.metrics import Metrics
from omni2_serve.protocol import client_events as client
from omni2_serve.protocol import server_events as server
from omni2_serve.protocol.errors import SERVER, RequestError
from omni2_serve.protocol.ids import new_id
from omni2_serve.protocol.items import Item, ItemList, checked
from omni2_serve.protocol.responses import ResponseEvents, ResponseSettings
from omni2_serve.protocol.server_events import Event
from omni2_serve.protocol.session_config import SessionConfig
from omni2_serve.realtime.answer import ERROR, Send, SentAnswer
from omni2_serve.realtime.detection import detection_of
from omni2_serve.sound.formats import Floats, from_base64
from omni2_serve.sound.pace import Pace

PER_MS = 16  # positions of a conversation in a millisecond
LEAST_COMMIT = 0.1  # seconds of sound in a message
log = logging.getLogger(__name__)


class SessionOver(Exception):
    """The session cannot go on.

    Args:
        code: that the WebSocket is closed with.
        error: the client is told it before.
    """

    def __init__(self, code: int, error: RequestError) -> None:
        self.code = code
        self.error = error
        super().__init__(error.message)


class ClientGone(Exception):
    """The client is not there any more, or does not read."""


@dataclass(frozen=True)
class _Commit:
    """A client's commit that the conversation has not carried out yet.

    Args:
        event_id: of the client's event.
        item: that the sound becomes; None for a new one.
        since: position from which on its sound lies.
        later: an answer is owed that does not answer it.
    """

    event_id: str | None
    item: Item | None = None
    since: int = 0
    later: bool = False


@dataclass
class _Owed:
    """An answer that was asked for and has not begun.

    Args:
        settings: see `ResponseSettings`.
        asked_at: when, by `time.monotonic`.
        cancelled: by the client, before it began.
        later: items that came after it was asked for; the next answer is theirs.
    """

    settings: ResponseSettings
    asked_at: float
    cancelled: bool = False
    later: list[Item] = field(default_factory=list)


class RealtimeSession:
    """One client's session.

    Args:
        host: the model.
        limits: see `ServiceLimits`.
        metrics: counts what happens.
        send: takes an event to the client, and may wait for it.
        config: the settings to begin with.
        clear_output: silences what plays the answers, where that is the server's part.

    Attributes:
        config: the settings in force.
        idle: set while no answer is made or owed.
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
    ) -> None:
        self.config = config
        self._clear_output = clear_output
        self.idle = asyncio.Event()
        self.idle.set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._host, self._limits, self._metrics, self._send = host, limits, metrics, send
        self._lock = asyncio.Lock()
        self._name = new_id("conv")
        self._items = ItemList()
        self._pace = Pace(limits.ahead)
        self._conversation: LiveConversation | None = None
        self._pump_task: asyncio.Task[None] | None = None
        self._fed = 0.0  # seconds of sound
        self._uncommitted = 0.0  # of it, since the last commit or clear
        self._speaking: str | None = None  # the item that the speech which goes on will be
        self._decided_at: float | None = None  # when the last speech was found to be over
        self._commits: deque[_Commit] = deque()
        self._owed: _Owed | None = None
        self._answer: SentAnswer | None = None
        self._sounded = False

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
                await self._handle(event)
            except CapacityError as error:
                raise SessionOver(1013, in_words(error)) from None
            except ClientGone:
                raise
            except Exception as error:
                await self._send(server.error(in_words(error), event.event_id))
        return self._pace.wait()

    async def hear(self, samples: Floats, rate: int) -> None:
        """Sound that comes by itself, as that of a call does.

        What comes faster than it can be spoken is left out, and so is what is not committed: see `Limits`.

        Args:
            samples: (n,) in ±1.
            rate: of the samples, Hz.

        Raises:
            SessionOver: there is no room for a conversation.
        """
        async with self._lock:
            kept = self.config.detection is not None or self._uncommitted < self._limits.uncommitted
            if not kept or self._pace.wait() > 0:
                return
            try:
                self._feed(samples, rate)
            except CapacityError as error:
                raise SessionOver(1013, in_words(error)) from None

    async def close(self) -> None:
        """Give back what the session holds of the engine."""
        if self._answer is not None:
            self._answer.stop()
        await self._close_conversation()
        if not self.failed.cancel():
            self.failed.exception()  # it has been told

    # -- the client's events ---------------------------------------------------------------------------------------

    async def _handle(self, event: client.AnyEvent) -> None:
        match event:
            case client.AudioAppend():
                self._append(event)
            case client.AudioCommit():
                self._commit(event)
            case client.AudioClear():
                await self._clear()
            case client.OutputClear():
                if self._clear_output is None:
                    raise RequestError(
                        "output_audio_buffer.clear belongs to WebRTC, where the server plays",
                        "here stop playing, and send conversation.item.truncate",
                        code="unsupported_event",
                        param="type",
                    )
                self._clear_output()
            case client.SessionUpdate():
                await self._update(event)
            case client.ItemCreate():
                await self._create_item(event)
            case client.ItemDelete():
                await self._delete_item(event)
            case client.ItemRetrieve():
                await self._send(server.item_retrieved(self._items.get(event.item_id, "retrieve")))
            case client.ItemTruncate():
                await self._truncate(event)
            case client.ResponseCreate():
                self._respond(event)
            case client.ResponseCancel():
                self._cancel(event)
            case _:
                assert_never(event)

    async def _update(self, event: client.SessionUpdate) -> None:
        before, config = self.config, self.config.updated(event.session, self._host.voices, self._sounded)
        if config.audio.output.voice != before.audio.output.voice and self._conversation is not None:
            if len(self._items):
                raise RequestError(
                    "the voice cannot change once the conversation has begun",
                    "open another session",
                    code="cannot_update_voice",
                    param="session.audio.output.voice",
                )
            await self._close_conversation()  # another one is begun with the next sound
        if config.instructions:
            self._host.check_instructions(config.instructions)
        self.config = config
        if self._conversation is not None:
            self._conversation.update(detection=self._detection(), system=self._system(config))
        await self._send(server.session_updated(config))

    def _append(self, event: client.AudioAppend) -> None:
        source = self.config.audio.input.format.format
        data = from_base64(event.audio)
        seconds = source.seconds(len(data))
        if seconds > self._limits.append:
            raise RequestError(
                f"the event holds {seconds:.0f} s of sound",
                f"send at most {self._limits.append:g} s in one",
                code="invalid_value",
                param="audio",
            )
        if self.config.detection is None and self._uncommitted + seconds > self._limits.uncommitted:
            raise RequestError(
                f"more than {self._limits.uncommitted:g} s of sound are not committed",
                "commit or clear them first",
                code="input_audio_buffer_full",
                param="audio",
            )
        self._feed(source.decode(data), source.rate)

    def _commit(self, event: client.AudioCommit) -> None:
        if self._uncommitted < LEAST_COMMIT and self._speaking is None:
            raise RequestError(
                f"the input audio buffer holds {1000 * self._uncommitted:.0f} ms of sound",
                f"append at least {1000 * LEAST_COMMIT:.0f} ms before it is committed",
                code="input_audio_buffer_commit_empty",
            )
        self._commits.append(_Commit(event.event_id, later=self._owed is not None))
        self._open().commit()
        self._uncommitted = 0.0

    async def _clear(self) -> None:
        if self._conversation is not None:
            self._conversation.clear()
        self._uncommitted, self._speaking = 0.0, None
        await self._send(server.cleared())

    async def _create_item(self, event: client.ItemCreate) -> None:
        role, text, sound = checked(event.item)
        item = Item(role, text, spoken=bool(sound), id=event.item.id or new_id("item"))
        samples = self._samples(sound)
        if role == "system":
            self._host.check_instructions(text)
        elif not sound:
            self._host.check_typed(text)
        previous = self._items.add(item, event.previous_item_id)
        try:
            if sound:
                self._commit_whole(samples, _Commit(event.event_id, item, int(1000 * PER_MS * self._fed)))
            elif role == "user":
                self._open().say(text)
            elif self._conversation is not None:
                self._conversation.update(system=self._system(self.config))
        except BaseException:
            self._items.remove(item)
            raise
        if self._owed is not None:
            self._owed.later.append(item)
        await self._tell(server.item_added(item, previous), server.item_done(item, previous))

    async def _delete_item(self, event: client.ItemDelete) -> None:
        item = self._items.get(event.item_id, "delete")
        if item.role == "system":
            self._items.remove(item)
            if self._conversation is not None:
                self._conversation.update(system=self._system(self.config))
        elif item is self._items.last_answer and (self._answer is None or self._answer.item is not item):
            if self._conversation is not None:
                self._conversation.truncate(0.0)
            self._items.remove(item)
        else:
            raise RequestError(
                "the model cannot forget this item",
                "delete the last answer once it is finished, or open another session",
                code="item_delete_unsupported",
                param="item_id",
            )
        await self._send(server.item_deleted(item.id))

    async def _truncate(self, event: client.ItemTruncate) -> None:
        item, heard = self._items.get(event.item_id, "truncate"), event.audio_end_ms / 1000
        if item.role != "assistant" or not item.spoken or event.content_index != 0:
            raise RequestError(
                "only spoken answers can be truncated, at content_index 0", code="invalid_value", param="item_id"
            )
        if heard >= item.seconds + 0.001:  # clients round
            raise RequestError(
                f"audio_end_ms is {event.audio_end_ms} and the answer has {1000 * item.seconds:.0f} ms of sound",
                "say how much of it was played",
                code="invalid_value",
                param="audio_end_ms",
            )
        if item is self._items.last_answer and self._conversation is not None:
            self._conversation.truncate(heard)
        elif not item.interrupted:  # of one that was, the model has forgotten what was not heard already
            raise RequestError("only the last answer can be truncated", code="invalid_value", param="item_id")
        item.cut(heard)
        await self._send(server.item_truncated(item.id, event.audio_end_ms))

    def _respond(self, event: client.ResponseCreate) -> None:
        if self._answer is not None or self._owed is not None:
            raise RequestError(
                "the conversation has an active response already",
                "wait for response.done, or cancel it",
                code="conversation_already_has_active_response",
            )
        settings = ResponseSettings.of(event.response, self.config, self._host.voices, event.event_id)
        config = settings.config
        if not self._items.unanswered() and not self._commits:
            self._say_unasked(config)
        options: TurnOptions = {"max_new_tokens": self._tokens(config)}
        if config.instructions != self.config.instructions:
            self._host.check_instructions(config.instructions)
            options["system"] = self._system(config)
        self._open().respond(**options)
        self._owe(_Owed(settings, monotonic()))

    def _say_unasked(self, config: SessionConfig) -> None:
        """The user has said nothing, and an answer is wanted: what the client says itself is put as a typed turn.

        This is how clients have a model greet, or answer an event. It is the system items that are new, else the
        instructions of the response, else those of the session.
        """
        items = self._items.unanswered("system")
        text = "\n\n".join(item.text for item in items) or config.instructions
        if not text:
            raise RequestError(
                "there is nothing to answer", "add a user's item before response.create", code="response_input_missing"
            )
        self._host.check_typed(text)
        for item in items:
            item.answered = True
        conversation = self._open()
        conversation.update(system=self._system(self.config))
        conversation.say(text)

    def _cancel(self, event: client.ResponseCancel) -> None:
        answer, owed, named = self._answer, self._owed, event.response_id
        if answer is not None and named in (None, answer.id):
            answer.cancel("client_cancelled")
            if self._conversation is not None:
                self._conversation.interrupt(answer.item.seconds)
        elif owed is not None and named is None:
            owed.cancelled = True
        else:
            raise RequestError("Cancellation failed: no active response found", code="response_cancel_not_active")

    # -- the conversation's events ---------------------------------------------------------------------------------

    async def _pump(self, conversation: LiveConversation) -> None:
        """Take the conversation's events until it ends."""
        try:
            async for event in conversation:
                async with self._lock:
                    await self._happened(event)
        except Exception as error:
            if not self.failed.done():
                self.failed.set_exception(error)

    async def _happened(self, event: live.Event) -> None:
        match event:
            case live.SpeechBegan():
                self._speaking = new_id("item")
                await self._send(server.speech_started(self._speaking, event.begin // PER_MS))
            case live.SpeechEnded():
                self._decided_at = monotonic()
                if self._speaking is not None:
                    await self._send(server.speech_stopped(self._speaking, event.decided // PER_MS))
            case live.Committed():
                await self._committed(event)
            case live.TurnBegun():
                if event.speculative:
                    self._metrics.speculative.labels("begun").inc()
            case live.TurnTakenBack():
                self._metrics.speculative.labels("taken back").inc()
            case live.AnswerBegun():
                await self._begin_answer()
            case live.TextWritten():
                if self._answer is not None:
                    await self._answer.text(event.text)
            case live.SoundMade():
                if self._answer is not None:
                    await self._answer.sound(event.chunk)
                    self._sounded = self._sounded or self._answer.sounded
            case live.Interrupted():
                if (item := self._items.last_answer) is not None:
                    item.interrupted = True
                if self._answer is not None:
                    self._answer.cancel("turn_detected")
            case live.Finished():
                await self._finish(event.reason, event)
            case live.Failed():
                await self._fail(event)
            case _:
                assert_never(event)

    async def _committed(self, event: live.Committed) -> None:
        item, known, later = None, False, False
        if self._commits and not event.answered and event.begin >= self._commits[0].since - PER_MS:
            commit = self._commits.popleft()
            item, later = commit.item, commit.later
        if item is not None and item in self._items:
            previous = self._items.before(item)
            known = True
        else:
            item = Item("user", spoken=True, id=self._speaking or new_id("item"))
            self._speaking, self._uncommitted = None, 0.0
            previous = self._items.append(item)
        if later and self._owed is not None:
            self._owed.later.append(item)
        if event.answered and self._owed is None:
            self._owe(_Owed(ResponseSettings(self.config), self._decided_at or monotonic()))
        if not known:
            await self._tell(
                server.committed(item.id, previous), server.item_added(item, previous), server.item_done(item, previous)
            )

    async def _begin_answer(self) -> None:
        owed, self._owed = self._owed or _Owed(ResponseSettings(self.config), monotonic()), None
        for item in self._items.unanswered():
            item.answered = all(item is not later for later in owed.later)
        events = ResponseEvents(owed.settings, self._name, self._host.rate)
        self._answer = SentAnswer(events, self._send, self._lock, self._metrics, owed.asked_at, self.failed)
        self.idle.clear()
        await self._answer.begin(self._items.append(events.item))
        if owed.cancelled and self._conversation is not None:
            self._answer.cancel("client_cancelled")
            self._conversation.interrupt(0.0)

    async def _finish(self, reason: str, event: live.Finished | None, error: RequestError | None = None) -> None:
        """Close the response that runs."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        metrics = event.metrics if event is not None else None
        await answer.finish(reason, metrics, error)
        self._sounded = self._sounded or answer.sounded
        if metrics is not None and not answer.item.spoken and self._conversation is not None:
            self._conversation.played(metrics.audio_seconds)  # what is read is heard, and not interrupted later
        self._set_idle()

    async def _fail(self, event: live.Failed) -> None:
        error = in_words(event.error)
        if event.turn is not None and self._answer is not None:
            await self._finish(ERROR, None, error)
            return
        event_id = None
        if event.turn is None and self._commits:
            event_id = self._commits.popleft().event_id
        elif self._owed is not None:
            event_id, self._owed = self._owed.settings.event_id, None
            self._set_idle()
        await self._send(server.error(error, event_id))

    # -- the conversation itself -----------------------------------------------------------------------------------

    def _open(self) -> LiveConversation:
        """The conversation; it begins with the first use, since a client sets voice and instructions first."""
        if self._conversation is None:
            self._conversation = self._host.open(
                self.config.audio.output.voice, self._detection(), self._system(self.config)
            )
            self._pump_task = asyncio.create_task(self._pump(self._conversation))
        return self._conversation

    async def _close_conversation(self) -> None:
        conversation, self._conversation = self._conversation, None
        pump, self._pump_task = self._pump_task, None
        if pump is not None:
            pump.cancel()
            await asyncio.wait([pump])
        if conversation is not None:
            await asyncio.to_thread(conversation.close)

    def _feed(self, samples: Floats, rate: int) -> None:
        if len(samples):
            self._open().feed(samples, rate)
            seconds = len(samples) / rate
            self._fed += seconds
            self._uncommitted += seconds
            self._pace.add(seconds)

    def _samples(self, pieces: list[str]) -> Floats:
        """The sound of a client's item."""
        if not pieces:
            return np.zeros(0, np.float32)
        source = self.config.audio.input.format.format
        samples = np.concatenate([source.decode(from_base64(piece)) for piece in pieces])
        seconds = len(samples) / source.rate
        if not LEAST_COMMIT <= seconds <= self._limits.append:
            raise RequestError(
                f"the item holds {seconds:.1f} s of sound",
                f"use {LEAST_COMMIT:g} to {self._limits.append:g} s",
                code="invalid_value",
                param="item.content",
            )
        return samples

    def _commit_whole(self, samples: Floats, commit: _Commit) -> None:
        """A message that was spoken elsewhere: turn detection does not hear it."""
        conversation, self._speaking = self._open(), None
        conversation.clear()
        conversation.update(detection=None)
        self._feed(samples, self.config.audio.input.format.format.rate)
        self._commits.append(commit)
        conversation.commit()
        conversation.update(detection=self._detection())
        self._uncommitted = 0.0

    def _owe(self, owed: _Owed) -> None:
        self._owed = owed
        self.idle.clear()

    def _set_idle(self) -> None:
        if self._answer is None and self._owed is None:
            self.idle.set()

    def _detection(self) -> Any:
        return detection_of(self.config.detection, self._host.soft_end)

    def _system(self, config: SessionConfig) -> str | None:
        """The system prompt: instructions, and what the client's system items say; None for the model's own."""
        return "\n\n".join(text for text in (config.instructions, self._items.system) if text) or None

    def _tokens(self, config: SessionConfig) -> int:
        most = self._host.most_tokens
        return most if config.max_output_tokens == "inf" else min(config.max_output_tokens, most)

    async def _tell(self, *events: Event) -> None:
        for event in events:
            await self._send(event)


def in_words(error: Exception) -> RequestError:
    """An engine's error for a client. Of one that is not meant for users nothing is told."""
    match error:
        case RequestError():
            return error
        case BusyError():
            return RequestError(error.problem, error.remedy, code="server_busy", kind=SERVER)
        case CapacityError():
            return RequestError("the server is full", "come back in a while", code="server_full", kind=SERVER)
        case Omni2Error():
            return RequestError(error.problem, error.remedy, code="invalid_value")
        case _:
            log.error("something failed that should not", exc_info=error)
            return RequestError("something went wrong in the server", code="internal_error", kind=SERVER)
