"""What a client's events ask for: calls of the live conversation, and changes of settings and items."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import assert_never

from omni2_engine.turn.options import TurnOptions
from omni2_serve.host import Host
from omni2_serve.protocol import client_events as client
from omni2_serve.protocol import server_events as server
from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.ids import new_id
from omni2_serve.protocol.items import Item, checked
from omni2_serve.protocol.responses import ResponseSettings
from omni2_serve.protocol.session_config import SessionConfig
from omni2_serve.realtime.answer import Send
from omni2_serve.realtime.conversation import SessionConversation
from omni2_serve.realtime.input_buffer import InputBuffer
from omni2_serve.realtime.state import OwedAnswer, PendingAnswer, RealtimeState


class ClientRequests:
    """Does what a client asks for; all methods are called with the session's lock held.

    Args:
        host: the model.
        recogniser: name of the server's; None where it has none.
        state: of the session.
        conversation: behind it.
        input_buffer: takes the user's sound.
        send: takes an event to the client.
        clear_output: silences what plays the answers, where that is the server's part.
    """

    def __init__(
        self,
        host: Host,
        recogniser: str | None,
        state: RealtimeState,
        conversation: SessionConversation,
        input_buffer: InputBuffer,
        send: Send,
        clear_output: Callable[[], None] | None,
    ) -> None:
        self._host, self._recogniser, self._state, self._send = host, recogniser, state, send
        self._conversation, self._input_buffer = conversation, input_buffer
        self._clear_output = clear_output

    async def handle(self, event: client.AnyEvent) -> None:
        """Do it.

        Raises:
            RequestError: it cannot be done.
            Omni2Error: the engine says so.
        """
        match event:
            case client.AudioAppend():
                self._input_buffer.append(event)
            case client.AudioCommit():
                self._input_buffer.commit(event)
            case client.AudioClear():
                self._input_buffer.clear()
                await self._send(server.cleared())
            case client.OutputClear():
                self._clear_player()
            case client.SessionUpdate():
                await self._update(event)
            case client.ItemCreate():
                await self._create_item(event)
            case client.ItemDelete():
                await self._delete_item(event)
            case client.ItemRetrieve():
                await self._send(server.item_retrieved(self._state.items.get(event.item_id, "retrieve")))
            case client.ItemTruncate():
                await self._truncate(event)
            case client.ResponseCreate():
                self._respond(event)
            case client.ResponseCancel():
                self._cancel(event)
            case _:
                assert_never(event)

    def _clear_player(self) -> None:
        if self._clear_output is None:
            raise RequestError(
                "output_audio_buffer.clear belongs to WebRTC, where the server plays",
                "here stop playing, and send conversation.item.truncate",
                code="unsupported_event",
                param="type",
            )
        self._clear_output()

    async def _update(self, event: client.SessionUpdate) -> None:
        state, before = self._state, self._state.config
        config = before.updated(event.session, self._host.voices, state.sounded, self._recogniser)
        if config.instructions:
            self._host.check_instructions(config.instructions)
        if config.audio.output.voice != before.audio.output.voice and self._conversation.current is not None:
            if len(state.items) or state.pending or state.owed is not None:
                raise RequestError(
                    "the voice cannot change once the conversation has begun",
                    "open another session",
                    code="cannot_update_voice",
                    param="session.audio.output.voice",
                )
            await self._conversation.close()  # another one is begun with the next sound
            self._input_buffer.begin_anew()
        state.config = config
        self._conversation.update()
        await self._send(server.session_updated(config))

    # -- items -----------------------------------------------------------------------------------------------------

    async def _create_item(self, event: client.ItemCreate) -> None:
        state = self._state
        new = checked(event.item)
        item = Item(new.role, new.text, new.spoken, id=event.item.id or new_id("item"))
        samples = self._input_buffer.samples(new.sound)
        if new.role == "system":
            self._host.check_instructions(new.text)
        elif new.role == "assistant":
            self._host.check_answer(new.text)
        elif not new.sound:
            self._host.check_typed(new.text)
        previous = state.items.add(item, event.previous_item_id)
        try:
            if new.sound:
                self._input_buffer.commit_item(samples, event.event_id, item)
            elif new.role == "user":
                self._conversation.open().say(new.text)
            elif new.role == "assistant":
                self._take_answer(item, event.event_id)
            else:
                self._conversation.update_system()
        except BaseException:
            state.items.remove(item)
            raise
        if state.owed is not None:
            state.owed.later.append(item)
        await self._send(server.item_added(item, previous))
        await self._send(server.item_done(item, previous))

    def _take_answer(self, item: Item, event_id: str | None) -> None:
        """An answer that was given elsewhere: with the user's items before it, it is an earlier turn of the model's.

        Raises:
            RequestError: the model's memory cannot take it here.
        """
        state = self._state
        self._check_inactive("wait for response.done before earlier turns are added")
        if any(commit.item is None for commit in state.commits):
            raise RequestError(
                "the sound that was committed is no item yet",
                "wait for input_audio_buffer.committed before the answer to it is added",
                code="invalid_value",
                param="item",
            )
        after = state.items.after(item)
        if any(other.role != "system" for other in after) or not state.items.unanswered():
            raise RequestError(
                "an answer belongs behind the user's item that it answers, and no other answer may be there",
                "add the items of earlier turns in their order, at the end of the conversation",
                code="invalid_value",
                param="previous_item_id",
            )
        self._conversation.open().answered(item.text)
        state.pending.append(PendingAnswer(event_id, item))
        item.given = True
        for question in state.items.unanswered():
            question.answered = True

    async def _delete_item(self, event: client.ItemDelete) -> None:
        state = self._state
        item = state.items.get(event.item_id, "delete")
        if item.role == "system":
            state.items.delete(item)
            self._conversation.update_system()
        elif self._is_last_answer(item) and state.answer is None:
            if self._conversation.current is not None:
                self._conversation.current.truncate(0.0)
            state.items.delete(item)
        else:
            raise RequestError(
                "the model cannot forget this item",
                "delete the last answer once it is finished, before the next one, or open another session",
                code="item_delete_unsupported",
                param="item_id",
            )
        await self._send(server.item_deleted(item.id))

    async def _truncate(self, event: client.ItemTruncate) -> None:
        item, heard = self._state.items.get(event.item_id, "truncate"), event.audio_end_ms / 1000
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
        if self._is_last_answer(item) and self._conversation.current is not None:
            self._conversation.current.truncate(heard)
        elif not item.interrupted:  # of one that was, the model has forgotten what was not heard already
            raise RequestError(
                "only the last answer can be truncated",
                "truncate it before you ask for the next one",
                code="invalid_value",
                param="item_id",
            )
        item.cut(heard)
        await self._send(server.item_truncated(item.id, event.audio_end_ms))

    def _is_last_answer(self, item: Item) -> bool:
        """Whether it is of the last turn, behind which none has begun: of no other the model can forget anything."""
        state = self._state
        followed = state.owed is not None or (state.answer is not None and state.answer.item is not item)
        return item is state.items.last_answer and not followed

    # -- responses -------------------------------------------------------------------------------------------------

    def _respond(self, event: client.ResponseCreate) -> None:
        state = self._state
        self._check_inactive("wait for response.done, or cancel it")
        settings = ResponseSettings.of(event.response, state.config, self._host.voices, event.event_id)
        config = settings.config
        if not state.items.unanswered() and not state.commits:
            self._say_unasked(config)
        options: TurnOptions = {"max_new_tokens": self._tokens(config)}
        if config.instructions != state.config.instructions:
            self._host.check_instructions(config.instructions)
            options["system"] = state.system(config)
        self._conversation.open().respond(**options)
        state.owe(OwedAnswer(settings, monotonic()))

    def _check_inactive(self, remedy: str) -> None:
        """Refuse what has to wait for the end of an answer.

        Raises:
            RequestError: one is made, or owed.
        """
        if self._state.answer is not None or self._state.owed is not None:
            raise RequestError(
                "the conversation has an active response already",
                remedy,
                code="conversation_already_has_active_response",
            )

    def _say_unasked(self, config: SessionConfig) -> None:
        """The user has said nothing, and an answer is wanted: what the client says itself is put as a typed turn.

        This is how clients have a model greet, or answer an event. It is the system items that are new, else the
        instructions of the response, else those of the session.
        """
        items = self._state.items.unanswered("system")
        text = "\n\n".join(item.text for item in items) or config.instructions
        if not text:
            raise RequestError(
                "there is nothing to answer", "add a user's item before response.create", code="response_input_missing"
            )
        self._host.check_typed(text)
        for item in items:
            item.answered = True
        conversation = self._conversation.open()
        self._conversation.update_system()
        conversation.say(text)

    def _cancel(self, event: client.ResponseCancel) -> None:
        answer, owed, named = self._state.answer, self._state.owed, event.response_id
        if answer is not None and named in (None, answer.id):
            answer.cancel("client_cancelled")
            if self._conversation.current is not None:
                self._conversation.current.interrupt(answer.item.seconds)
        elif owed is not None and named is None:
            owed.cancelled = True
        else:
            raise RequestError("Cancellation failed: no active response found", code="response_cancel_not_active")

    def _tokens(self, config: SessionConfig) -> int:
        most = self._host.most_tokens
        return most if config.max_output_tokens == "inf" else min(config.max_output_tokens, most)
