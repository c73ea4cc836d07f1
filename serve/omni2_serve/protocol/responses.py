"""One response: its settings, and its events in the order that all clients accept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.metrics import TurnMetrics
from omni2_serve.protocol.client_events import ResponseOptions
from omni2_serve.protocol.errors import SERVER, RequestError
from omni2_serve.protocol.ids import new_id
from omni2_serve.protocol.items import Item
from omni2_serve.protocol.server_events import Event, event, item_added, item_done
from omni2_serve.protocol.session_config import SessionConfig
from omni2_serve.protocol.usage import usage
from omni2_serve.sound.formats import Encoder, Floats, to_base64

Reason = Literal["turn_detected", "client_cancelled"]
PIECE = 1.0  # seconds of sound in an event at most
CHANGED = ("instructions", "output_modalities", "max_output_tokens", "tool_choice", "tools", "prompt", "audio")


@dataclass(frozen=True)
class ResponseSettings:
    """How one response is to be.

    Args:
        config: the session's settings with those of this response.
        metadata: the client's own words, given back.
        event_id: of the client's `response.create`; None where speech asked for it.
    """

    config: SessionConfig
    metadata: dict[str, str] | None = None
    event_id: str | None = None

    @classmethod
    def of(
        cls, options: ResponseOptions | None, config: SessionConfig, voices: list[str], event_id: str | None
    ) -> ResponseSettings:
        """The session's settings with a client's changes.

        Raises:
            RequestError: a value makes no sense, or cannot be done.
        """
        if options is None:
            return cls(config, None, event_id)
        if options.conversation not in (None, "auto"):
            raise RequestError(
                "a response outside of the conversation is not offered",
                'leave "conversation" out',
                code="unsupported_value",
                param="response.conversation",
            )
        if options.input is not None:
            raise RequestError(
                "a response to other input than the conversation is not offered",
                "add the input with conversation.item.create",
                code="unsupported_value",
                param="response.input",
            )
        extra = options.model_extra or {}
        changes = {name: extra[name] for name in CHANGED if extra.get(name) is not None}
        try:
            changed = config.updated(changes, voices, sounded=True)
        except RequestError as error:
            param = error.param and error.param.replace("session.", "response.", 1)
            raise RequestError(error.problem, error.remedy, code=error.code, param=param) from None
        return cls(changed, options.metadata, event_id)


@dataclass
class ResponseEvents:
    """The events of one response.

    Args:
        settings: how it is to be.
        conversation: name of the conversation.
        rate: of the engine's sound, Hz.

    Attributes:
        item: the answer.
        id: its name.
        closed: `finish` was called.
    """

    settings: ResponseSettings
    conversation: str
    rate: int
    id: str = field(default_factory=lambda: new_id("resp"))
    closed: bool = False

    def __post_init__(self) -> None:
        self.speaks = self.settings.config.speaks
        self.item = Item("assistant", spoken=self.speaks, status="in_progress")
        self._encoder = Encoder(self.settings.config.audio.output.format.format, self.rate)
        self._previous: str | None = None

    def begin(self, previous_item_id: str | None) -> Iterator[Event]:
        """Before anything of it is there."""
        self._previous = previous_item_id
        yield event("response.created", response=self._shown("in_progress"))
        yield self._event("response.output_item.added", item=self.item.shown(empty=True), at_item=False)
        yield item_added(self.item, previous_item_id, empty=True)
        yield self._event("response.content_part.added", part=self._part(""))

    def text(self, text: str) -> Iterator[Event]:
        """What was written."""
        self.item.text += text
        if text:
            kind = "response.output_audio_transcript.delta" if self.speaks else "response.output_text.delta"
            yield self._event(kind, delta=text)

    def sound(self, chunk: Chunk) -> Iterator[Event]:
        """What was spoken."""
        if not self.speaks:
            return
        self.item.marks.append((chunk.start, chunk.spoken))
        yield from self._deltas(chunk.pcm)

    def finish(
        self,
        reason: str,
        metrics: TurnMetrics | None,
        cancelled_by: Reason = "client_cancelled",
        error: RequestError | None = None,
    ) -> Iterator[Event]:
        """Close everything that is open.

        Args:
            reason: how the turn ended, as in `Finished`; "error" with `error`.
            metrics: of the turn.
            cancelled_by: who ended a cancelled one.
            error: why it failed.
        """
        self.closed = True
        self.item.status = "completed" if reason == "end" else "incomplete"
        text = self.item.text
        if self.speaks:
            if reason != "cancelled":
                yield from self._deltas(np.zeros(0, np.float32), last=True)
            yield self._event("response.output_audio.done")
            yield self._event("response.output_audio_transcript.done", transcript=text)
        else:
            yield self._event("response.output_text.done", text=text)
        yield self._event("response.content_part.done", part=self._part(text))
        yield self._event("response.output_item.done", item=self.item.shown(), at_item=False)
        yield item_done(self.item, self._previous)
        status, details = _status(reason, cancelled_by, error)
        yield event("response.done", response=self._shown(status, details, metrics))

    def _deltas(self, samples: Floats, last: bool = False) -> Iterator[Event]:
        """Sound in pieces; `last` for what a resampler still holds."""
        data, to = self._encoder.encode(samples, last), self._encoder.to
        self.item.seconds = self._encoder.seconds
        step = int(PIECE * to.rate) * to.width
        for start in range(0, len(data), step):
            yield self._event("response.output_audio.delta", delta=to_base64(data[start : start + step]))

    def _event(self, kind: str, at_item: bool = True, **fields: Any) -> Event:
        place: dict[str, Any] = {"item_id": self.item.id, "content_index": 0} if at_item else {}
        return event(kind, response_id=self.id, output_index=0, **place, **fields)

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "audio", "transcript": text} if self.speaks else {"type": "text", "text": text}

    def _shown(
        self, status: str, details: dict[str, Any] | None = None, metrics: TurnMetrics | None = None
    ) -> dict[str, Any]:
        config, ended = self.settings.config, status != "in_progress"
        output = config.audio.output
        return {
            "object": "realtime.response",
            "id": self.id,
            "conversation_id": self.conversation,
            "status": status,
            "status_details": details,
            "output": [self.item.shown()] if ended else [],
            "output_modalities": list(config.output_modalities),
            "audio": {"output": {"format": output.format.model_dump(), "voice": output.voice}},
            "max_output_tokens": config.max_output_tokens,
            "metadata": self.settings.metadata,
            "usage": usage(metrics) if ended else None,
        }


def _status(reason: str, cancelled_by: Reason, error: RequestError | None) -> tuple[str, dict[str, Any]]:
    """Status of a response, and its details."""
    if error is not None:
        return "failed", {"type": "failed", "error": {"type": SERVER, "code": error.code, "message": error.message}}
    if reason == "cancelled":
        return "cancelled", {"type": "cancelled", "reason": cancelled_by}
    if reason == "limit":
        return "incomplete", {"type": "incomplete", "reason": "max_output_tokens"}
    return "completed", {"type": "completed"}
