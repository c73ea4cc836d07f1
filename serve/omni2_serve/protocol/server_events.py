"""Events that the server sends. All are made here, so that none lacks a field that a client insists on."""

from __future__ import annotations

from typing import Any

from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.ids import new_id
from omni2_serve.protocol.items import Item
from omni2_serve.protocol.session_config import SessionConfig

Event = dict[str, Any]


def event(kind: str, **fields: Any) -> Event:
    """An event of this type, with an id of its own."""
    return {"type": kind, "event_id": new_id("event"), **fields}


def error(problem: RequestError, event_id: str | None) -> Event:
    """Something is wrong, usually with the client's event `event_id`."""
    described = {
        "type": problem.kind,
        "code": problem.code,
        "message": problem.message,
        "param": problem.param,
        "event_id": event_id,
    }
    return event("error", error=described)


def session_created(config: SessionConfig) -> Event:
    return event("session.created", session=config.shown())


def session_updated(config: SessionConfig) -> Event:
    return event("session.updated", session=config.shown())


def speech_started(item_id: str, audio_start_ms: int) -> Event:
    return event("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=audio_start_ms)


def speech_stopped(item_id: str, audio_end_ms: int) -> Event:
    return event("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=audio_end_ms)


def committed(item_id: str, previous_item_id: str | None) -> Event:
    return event("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous_item_id)


def cleared() -> Event:
    return event("input_audio_buffer.cleared")


def item_added(item: Item, previous_item_id: str | None, empty: bool = False) -> Event:
    return event("conversation.item.added", item=item.shown(empty), previous_item_id=previous_item_id)


def item_done(item: Item, previous_item_id: str | None) -> Event:
    return event("conversation.item.done", item=item.shown(), previous_item_id=previous_item_id)


def item_deleted(item_id: str) -> Event:
    return event("conversation.item.deleted", item_id=item_id)


def item_retrieved(item: Item) -> Event:
    return event("conversation.item.retrieved", item=item.shown())


def item_truncated(item_id: str, audio_end_ms: int) -> Event:
    return event("conversation.item.truncated", item_id=item_id, content_index=0, audio_end_ms=audio_end_ms)


def transcription_delta(item_id: str, delta: str) -> Event:
    return event("conversation.item.input_audio_transcription.delta", item_id=item_id, content_index=0, delta=delta)


def transcription_completed(item_id: str, transcript: str, seconds: float) -> Event:
    return event(
        "conversation.item.input_audio_transcription.completed",
        item_id=item_id,
        content_index=0,
        transcript=transcript,
        usage={"type": "duration", "seconds": seconds},
    )


def transcription_failed(item_id: str, problem: RequestError) -> Event:
    described = {"type": problem.kind, "code": problem.code, "message": problem.message, "param": problem.param}
    return event(
        "conversation.item.input_audio_transcription.failed", item_id=item_id, content_index=0, error=described
    )


def output_started(response_id: str) -> Event:
    return event("output_audio_buffer.started", response_id=response_id)


def output_stopped(response_id: str) -> Event:
    return event("output_audio_buffer.stopped", response_id=response_id)


def output_cleared(response_id: str) -> Event:
    return event("output_audio_buffer.cleared", response_id=response_id)
