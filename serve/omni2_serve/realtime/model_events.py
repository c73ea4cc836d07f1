"""What happens in the live conversation → the session's items and responses, and the events that tell of them."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import assert_never

from omni2_engine.live import events as live
from omni2_serve.host import Host
from omni2_serve.metrics import Metrics
from omni2_serve.protocol import server_events as server
from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.ids import new_id
from omni2_serve.protocol.items import Item
from omni2_serve.protocol.responses import ResponseEvents, ResponseSettings
from omni2_serve.realtime.answer import ERROR, Send, SentAnswer
from omni2_serve.realtime.conversation import SessionConversation
from omni2_serve.realtime.failures import in_words
from omni2_serve.realtime.input_buffer import PER_MS
from omni2_serve.realtime.state import OwedAnswer, PendingAnswer, PendingCommit, RealtimeState
from omni2_serve.realtime.transcripts import Transcripts


class ModelEvents:
    """Takes the conversation's events one by one; all methods are called with the session's lock held.

    Args:
        host: the model.
        metrics: counts what happens.
        state: of the session.
        conversation: behind it.
        transcripts: of what the user says.
        send: takes an event to the client.
        lock: the session's.
        failed: gets the exception of a sending that no caller waits for.
    """

    def __init__(
        self,
        host: Host,
        metrics: Metrics,
        state: RealtimeState,
        conversation: SessionConversation,
        transcripts: Transcripts,
        send: Send,
        lock: asyncio.Lock,
        failed: asyncio.Future[None],
    ) -> None:
        self._host, self._metrics, self._state, self._conversation = host, metrics, state, conversation
        self._transcripts = transcripts
        self._send, self._lock, self._failed = send, lock, failed

    async def happened(self, event: live.Event) -> None:
        """Tell of it what the client is to know."""
        state = self._state
        match event:
            case live.SpeechBegan():
                state.speaking = new_id("item")
                await self._send(server.speech_started(state.speaking, event.begin // PER_MS))
            case live.SpeechEnded():
                state.decided_at = monotonic()
                if state.speaking is not None:
                    await self._send(server.speech_stopped(state.speaking, event.decided // PER_MS))
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
                if state.answer is not None:
                    await state.answer.text(event.text)
            case live.SoundMade():
                if state.answer is not None:
                    await state.answer.sound(event.chunk)
                    state.sounded = state.sounded or state.answer.sounded
            case live.Interrupted():
                if (item := state.items.last_made) is not None:
                    item.interrupted = True
                if state.answer is not None:
                    state.answer.cancel("turn_detected")
            case live.TurnAdded():
                if state.pending and isinstance(state.pending[0], PendingAnswer):
                    state.pending.popleft()
            case live.Finished():
                await self._finish(event.reason, event)
            case live.Failed():
                await self._fail(event)
            case _:
                assert_never(event)

    async def _committed(self, event: live.Committed) -> None:
        state = self._state
        item, known, later = None, False, False
        head = state.pending[0] if state.pending else None
        if isinstance(head, PendingCommit) and not event.answered and event.begin >= head.since - PER_MS:
            state.pending.popleft()
            item, later = head.item, head.later
        if item is not None and item in state.items:
            previous = state.items.before(item)
            known = True
        else:
            item = Item("user", spoken=True, id=state.speaking or new_id("item"))
            state.speaking, state.uncommitted = None, 0.0
            previous = state.items.append(item)
        if later and state.owed is not None:
            state.owed.later.append(item)
        if event.answered and state.owed is None:
            state.owe(OwedAnswer(ResponseSettings(state.config), state.decided_at or monotonic()))
        if not known:
            await self._send(server.committed(item.id, previous))
            await self._send(server.item_added(item, previous))
            await self._send(server.item_done(item, previous))
            self._transcripts.ask(item, event.speech)

    async def _begin_answer(self) -> None:
        state = self._state
        owed, state.owed = state.owed or OwedAnswer(ResponseSettings(state.config), monotonic()), None
        for item in state.items.unanswered():
            item.answered = all(item is not later for later in owed.later)
        events = ResponseEvents(owed.settings, state.name, self._host.rate)
        state.answer = SentAnswer(events, self._send, self._lock, self._metrics, owed.asked_at, self._failed)
        state.idle.clear()
        await state.answer.begin(state.items.append(events.item))
        if owed.cancelled and self._conversation.current is not None:
            state.answer.cancel("client_cancelled")
            self._conversation.current.interrupt(0.0)

    async def _finish(self, reason: str, event: live.Finished | None, error: RequestError | None = None) -> None:
        """Close the response that runs."""
        state = self._state
        answer, state.answer = state.answer, None
        if answer is None:
            return
        metrics = event.metrics if event is not None else None
        await answer.finish(reason, metrics, error)
        state.sounded = state.sounded or answer.sounded
        if metrics is not None and not answer.item.spoken and self._conversation.current is not None:
            self._conversation.current.played(metrics.audio_seconds)  # what is read is heard, and not interrupted later
        state.set_idle()

    async def _fail(self, event: live.Failed) -> None:
        state, error = self._state, in_words(event.error)
        if event.turn is not None and state.answer is not None:
            await self._finish(ERROR, None, error)
            return
        event_id = None
        if event.turn is None and state.pending:
            pending = state.pending.popleft()
            event_id = pending.event_id
            if isinstance(pending, PendingAnswer) and pending.item in state.items:
                state.items.remove(pending.item)
                await self._send(server.error(error, event_id))
                await self._send(server.item_deleted(pending.item.id))
                return
        elif state.owed is not None:
            event_id, state.owed = state.owed.settings.event_id, None
            state.set_idle()
        await self._send(server.error(error, event_id))
