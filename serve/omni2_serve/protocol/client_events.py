"""Events that a client sends: text → checked records."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from omni2_serve.protocol.errors import RequestError, invalid
from omni2_serve.protocol.ids import LONGEST

Name = Annotated[str, Field(min_length=1, max_length=LONGEST)]
MOST_METADATA = 16  # pairs


class Part(BaseModel):
    """A piece of a message."""

    type: Literal["input_text", "input_audio", "output_text", "output_audio", "text", "audio", "input_image"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None


class NewItem(BaseModel):
    """An item that a client adds to its conversation; only messages are understood."""

    id: Name | None = None
    type: str
    role: Literal["user", "assistant", "system"] | None = None
    content: list[Part] = Field(default_factory=list, max_length=64)


class ResponseOptions(BaseModel):
    """What `response.create` may change for one response; values are checked where they are used."""

    model_config = ConfigDict(extra="allow")

    conversation: str | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=MOST_METADATA)
    input: list[Any] | None = None


class ClientEvent(BaseModel):
    """What all events have."""

    event_id: str | None = Field(default=None, max_length=LONGEST)


class SessionUpdate(ClientEvent):
    """Change some of the session's settings; see `SessionConfig`."""

    type: Literal["session.update"]
    session: dict[str, Any]


class AudioAppend(ClientEvent):
    """Sound in the session's input format, base64."""

    type: Literal["input_audio_buffer.append"]
    audio: str


class AudioCommit(ClientEvent):
    """What was appended is a user message."""

    type: Literal["input_audio_buffer.commit"]


class AudioClear(ClientEvent):
    """Forget what was appended."""

    type: Literal["input_audio_buffer.clear"]


class OutputClear(ClientEvent):
    """Stop playing; WebRTC only."""

    type: Literal["output_audio_buffer.clear"]


class ItemCreate(ClientEvent):
    """Add an item after another: after the last one, or "root" for the beginning."""

    type: Literal["conversation.item.create"]
    item: NewItem
    previous_item_id: Name | None = None


class ItemDelete(ClientEvent):
    """Take an item out of the conversation."""

    type: Literal["conversation.item.delete"]
    item_id: Name


class ItemRetrieve(ClientEvent):
    """Show an item."""

    type: Literal["conversation.item.retrieve"]
    item_id: Name


class ItemTruncate(ClientEvent):
    """Forget what of an answer was not heard."""

    type: Literal["conversation.item.truncate"]
    item_id: Name
    content_index: int
    audio_end_ms: Annotated[int, Field(ge=0)]


class ResponseCreate(ClientEvent):
    """Ask for an answer."""

    type: Literal["response.create"]
    response: ResponseOptions | None = None


class ResponseCancel(ClientEvent):
    """End the answer that runs."""

    type: Literal["response.cancel"]
    response_id: str | None = None


AnyEvent = (
    SessionUpdate
    | AudioAppend
    | AudioCommit
    | AudioClear
    | OutputClear
    | ItemCreate
    | ItemDelete
    | ItemRetrieve
    | ItemTruncate
    | ResponseCreate
    | ResponseCancel
)
_ADAPTER: TypeAdapter[AnyEvent] = TypeAdapter(Annotated[AnyEvent, Field(discriminator="type")])
TYPES = tuple(kind.model_fields["type"].annotation.__args__[0] for kind in AnyEvent.__args__)


class BadEvent(Exception):
    """An event that cannot be read.

    Args:
        error: what is wrong.
        event_id: the event's own, if it says one.
    """

    def __init__(self, error: RequestError, event_id: str | None) -> None:
        self.error = error
        self.event_id = event_id
        super().__init__(str(error))


def parse(message: str | bytes) -> AnyEvent:
    """Read an event.

    Raises:
        BadEvent: it is no JSON object, of no known type, or a field is wrong.
    """
    try:
        value = from_json(message, allow_inf_nan=False)
    except ValueError:
        error = RequestError("the message is not JSON", "send one event a message", code="invalid_json")
        raise BadEvent(error, None) from None
    if not isinstance(value, dict):
        error = RequestError("the message is no JSON object", "send one event a message", code="invalid_json")
        raise BadEvent(error, None)
    event_id = value.get("event_id")
    event_id = event_id if isinstance(event_id, str) and len(event_id) <= LONGEST else None
    if value.get("type") not in TYPES:
        raise BadEvent(
            RequestError(
                "the event's type is none that a client may send",
                f"use one of {', '.join(TYPES)}",
                code="invalid_value",
                param="type",
            ),
            event_id,
        )
    try:
        return _ADAPTER.validate_python(value, strict=True)
    except ValidationError as error:
        raise BadEvent(_without_tag(invalid(error), str(value["type"])), event_id) from None


def _without_tag(error: RequestError, tag: str) -> RequestError:
    """pydantic begins the path of a tagged union with the tag."""
    if error.param and error.param.startswith(tag):
        param = error.param[len(tag) + 1 :] or None
        return RequestError(error.problem.replace(tag + ".", "", 1), code=error.code, param=param)
    return error
