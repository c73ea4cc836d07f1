"""What a chat completion asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from omni2_engine import EarlierTurn
from omni2_engine.sampling import Sampling
from omni2_engine.turn.options import TurnOptions
from omni2_serve.host import Host
from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.session_config import STOCK_VOICES
from omni2_serve.sound.files import FILE_FORMATS, PCM16
from omni2_serve.sound.formats import from_base64

SYSTEM = ("system", "developer")


class TextPart(BaseModel):
    """Typed."""

    type: Literal["text"]
    text: str


class InputAudio(BaseModel):
    """A recording: base64 of an audio file, whose format is found in it."""

    data: str
    format: str | None = None


class AudioPart(BaseModel):
    """Spoken."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class Message(BaseModel):
    """One of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Annotated[TextPart | AudioPart, Field(discriminator="type")]] | None = None
    audio: dict[str, Any] | None = None


class OutputAudio(BaseModel):
    """How the answer sounds."""

    voice: str | dict[str, Any] | None = None
    format: str = "wav"


class StreamOptions(BaseModel):
    """What a stream tells beside the answer."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body. Fields that are not here have no effect on answers."""

    messages: list[Message] = Field(min_length=1, max_length=1_000)
    modalities: list[Literal["text", "audio"]] | None = None
    audio: OutputAudio | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int | None = None
    tool_choice: Any = None
    response_format: Any = None

    @property
    def speaks(self) -> bool:
        """Whether sound is wanted."""
        return "audio" in (self.modalities or ())


@dataclass(frozen=True)
class ChatQuestion:
    """A chat completion in the engine's terms.

    Args:
        audio: content of an audio file; None for a typed question.
        text: what was typed; None for a spoken one.
        system: the system prompt; None for the model's own.
        voice: name.
        options: of the turn.
        format: of the answer's sound; None where none is wanted.
        earlier: turns of the conversation before, in their order.
    """

    audio: bytes | None
    text: str | None
    system: str | None
    voice: str
    options: TurnOptions
    format: str | None
    earlier: tuple[EarlierTurn, ...] = ()


def question(request: ChatRequest, host: Host) -> ChatQuestion:
    """Check a request.

    Raises:
        RequestError: something of it cannot be done.
    """
    if request.n not in (None, 1):
        raise _unsupported("n", "one answer a request is made")
    if request.tool_choice not in (None, "auto", "none"):
        raise _unsupported("tool_choice", "the model calls no tools")
    if isinstance(request.response_format, dict) and request.response_format.get("type") != "text":
        raise _unsupported("response_format", "the model writes as it speaks")
    system = [message for message in request.messages if message.role in SYSTEM]
    others = [message for message in request.messages if message.role not in SYSTEM]
    instructions = "\n\n".join(_content(message)[1] or "" for message in system) or None
    earlier, (audio, text) = _turns(others, host)
    return ChatQuestion(
        audio, text, instructions, _voice(request, host), _options(request, host), _format(request), earlier
    )


def _turns(messages: list[Message], host: Host) -> tuple[tuple[EarlierTurn, ...], tuple[bytes | None, str | None]]:
    """The turns before, and sound or text of the question.

    Raises:
        RequestError: the messages are not questions and their answers, and a question at the end.
    """
    earlier: list[EarlierTurn] = []
    asked: list[tuple[bytes | None, str | None]] = []
    for message in messages:
        if message.role == "user":
            asked.append(_content(message))
            continue
        if message.role != "assistant" or not asked:
            raise _unsupported("messages", "messages are the user's, each with the answer behind it but the last")
        audio, text = _one_question(asked, host)
        earlier.append(EarlierTurn(_answer(message, host), audio, text))
        asked = []
    if not asked:
        raise _unsupported("messages", "the last message is the user's")
    return tuple(earlier), _one_question(asked, host)


def _one_question(asked: list[tuple[bytes | None, str | None]], host: Host) -> tuple[bytes | None, str | None]:
    """Sound or text of the user's messages that are answered as one."""
    if len(asked) > 1 and any(audio is not None for audio, _ in asked):
        raise _unsupported("messages", "a recording is answered alone: no other user message stands beside it")
    audio, _ = asked[0]
    if audio is not None:
        return audio, None
    text = "\n".join(text or "" for _, text in asked)
    host.check_typed(text)
    return None, text


def _answer(message: Message, host: Host) -> str:
    """Text of an answer that was given before; it may be empty."""
    if message.content is None and message.audio is not None:
        raise _unsupported("messages", "the sound of answers is not kept: send the answer's transcript as its content")
    parts = [] if message.content is None or isinstance(message.content, str) else message.content
    if any(isinstance(part, AudioPart) for part in parts):
        raise _unsupported("messages", "an answer is text: send its transcript")
    text = message.content if isinstance(message.content, str) else ""
    text += "".join(part.text for part in parts if isinstance(part, TextPart))
    host.check_answer(text)
    return text


def _content(message: Message) -> tuple[bytes | None, str | None]:
    """Sound or text of a message."""
    parts = [TextPart(type="text", text=message.content)] if isinstance(message.content, str) else message.content or []
    sound = [part.input_audio.data for part in parts if isinstance(part, AudioPart)]
    texts = [part.text for part in parts if isinstance(part, TextPart) and part.text]
    if len(sound) + len(texts) == 0 or len(sound) > 1 or (sound and (texts or message.role != "user")):
        raise _unsupported("messages", "a message is one recording, or text")
    return (from_base64(sound[0]), None) if sound else (None, "\n".join(texts))


def _options(request: ChatRequest, host: Host) -> TurnOptions:
    most = request.max_completion_tokens or request.max_tokens or host.most_tokens
    options: TurnOptions = {"max_new_tokens": min(most, host.most_tokens), "long": "truncate"}
    if request.seed is not None:
        options["seed"] = request.seed
    if request.temperature or request.top_p is not None:
        options["text_sampling"] = Sampling(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
        )
    return options


def _voice(request: ChatRequest, host: Host) -> str:
    voice = request.audio.voice if request.audio else None
    name = voice.get("id") if isinstance(voice, dict) else voice
    if name is None or name in STOCK_VOICES - set(host.voices):
        return host.voices[0]
    if name not in host.voices:
        raise RequestError(
            f"there is no voice {str(name)[:40]!r}",
            f"use one of {', '.join(host.voices)}",
            code="invalid_value",
            param="audio.voice",
        )
    return str(name)


def _format(request: ChatRequest) -> str | None:
    if not request.speaks:
        return None
    name = request.audio.format if request.audio else "wav"
    if request.stream and name != PCM16:
        raise _unsupported("audio.format", "sound is streamed as pcm16")
    if name not in FILE_FORMATS:
        raise _unsupported("audio.format", f"sound is made as {', '.join(FILE_FORMATS)}")
    return name


def _unsupported(param: str, problem: str) -> RequestError:
    return RequestError(problem, code="unsupported_value", param=param)
