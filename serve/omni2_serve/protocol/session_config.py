"""The session object: what is in force, changed by parts, shown whole.

What the model cannot do is answered in one of two ways. Settings that stock clients send unasked are accepted and have
no effect; the session that is shown then says so: `tools` empty, `noise_reduction` and `tracing` null, and
`transcription` as well where the server has no recogniser.
Settings that would change an answer, which ours then would not be, are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer, model_validator

from omni2_serve.protocol.errors import RequestError, invalid
from omni2_serve.sound.formats import FORMATS, PCM, SoundFormat

STOCK_VOICES = frozenset(
    ["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"]
)  # mean our default
MOST_TOKENS = 4096
MOST_TOOLS = 128
LONGEST_TEXT = 100_000  # characters of instructions
NULL_MEANS = frozenset({"turn_detection"})  # elsewhere null is the default
UNCHANGED = frozenset({"id", "object", "model", "expires_at", "include", "reasoning", "parallel_tool_calls"})
LONGEST_PROMPT = 1_000  # characters of a recogniser's
Modality = Literal["audio", "text"]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)] | Literal["inf"]


class Settings(BaseModel):
    """Fields we do not know are ignored: clients are newer than servers."""

    model_config = ConfigDict(frozen=True)


class ServerVad(Settings):
    """A turn ends with a time of silence."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=5_000)
    silence_duration_ms: int = Field(default=500, ge=50, le=10_000)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: None = None


class SemanticVad(Settings):
    """A turn ends when its sentence sounds finished, or after a longer silence."""

    type: Literal["semantic_vad"] = "semantic_vad"
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


class AudioFormat(Settings):
    """See `SoundFormat`."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: Literal[24_000, 8_000] | None = None

    @model_validator(mode="after")
    def _one_rate(self) -> AudioFormat:
        if self.rate not in (None, self.format.rate):
            raise ValueError(f"{self.type} has {self.format.rate} Hz here")
        return self

    @model_serializer
    def _shown(self) -> dict[str, Any]:
        return {"type": self.type, "rate": self.format.rate} if self.type == PCM.name else {"type": self.type}

    @property
    def format(self) -> SoundFormat:
        return FORMATS[self.type]


class Transcription(Settings):
    """How the user's speech is written down.

    Args:
        model: the server's own; clients may say any.
        language: as "en"; None to have it found.
        prompt: words that may be said.
    """

    model: str = ""
    language: str | None = Field(default=None, min_length=1, max_length=16)
    prompt: str | None = Field(default=None, max_length=LONGEST_PROMPT)


Detection = Annotated[ServerVad | SemanticVad, Field(discriminator="type")]


class AudioIn(Settings):
    """Of what the user says."""

    format: AudioFormat = AudioFormat()
    noise_reduction: None = None
    transcription: Transcription | None = None
    turn_detection: Detection | None = ServerVad()


class AudioOut(Settings):
    """Of what is answered."""

    format: AudioFormat = AudioFormat()
    voice: str = ""
    speed: float = 1.0


class Audio(Settings):
    """Both ways."""

    input: AudioIn = AudioIn()
    output: AudioOut = AudioOut()


class SessionConfig(Settings):
    """What is in force; field names and values as on the wire."""

    type: Literal["realtime"] = "realtime"
    object: Literal["realtime.session"] = "realtime.session"
    id: str = ""
    model: str = ""
    output_modalities: tuple[Modality] = ("audio",)
    instructions: str = Field(default="", max_length=LONGEST_TEXT)
    audio: Audio = Audio()
    max_output_tokens: Tokens = "inf"
    tools: tuple[()] = ()
    tool_choice: Literal["auto", "none"] = "auto"
    tracing: None = None
    truncation: Literal["auto"] = "auto"
    prompt: None = None
    expires_at: int = 0

    def shown(self) -> dict[str, Any]:
        """The whole object, for an event."""
        return self.model_dump(mode="json")

    @property
    def detection(self) -> ServerVad | SemanticVad | None:
        """How turns end; None where the client says so itself."""
        return self.audio.input.turn_detection

    @property
    def speaks(self) -> bool:
        """Whether answers are spoken, and not written."""
        return self.output_modalities == ("audio",)

    def updated(
        self,
        changes: Mapping[str, Any],
        voices: Sequence[str],
        sounded: bool = False,
        recogniser: str | None = None,
    ) -> SessionConfig:
        """This session with some settings changed. What is not named stays; null clears.

        Args:
            changes: as in `session.update`.
            voices: of the engine, the default first.
            sounded: sound has been sent, so the voice stays.
            recogniser: name of the server's; None where it has none.

        Raises:
            RequestError: a value makes no sense, or cannot be done.
        """
        kind = changes.get("type", "realtime")
        if kind != "realtime":
            raise RequestError(
                f"a session of type {str(kind)[:40]!r} is not offered",
                'use "realtime"',
                code="invalid_value",
                param="session.type",
            )
        try:
            config = SessionConfig.model_validate(
                _merged(self.model_dump(), _possible(changes, recogniser)), strict=False
            )
        except ValidationError as error:
            raise invalid(error, "session") from None
        return config._with_voice(self, voices, sounded)

    def _with_voice(self, before: SessionConfig, voices: Sequence[str], sounded: bool) -> SessionConfig:
        """Put in the voice that will be heard."""
        voice, path = self.audio.output.voice, "session.audio.output.voice"
        if voice not in voices:
            if voice and voice not in STOCK_VOICES:
                raise RequestError(
                    f"there is no voice {voice[:40]!r}",
                    f"use one of {', '.join(voices)}",
                    code="invalid_value",
                    param=path,
                )
            voice = voices[0]
        if sounded and voice != before.audio.output.voice:
            raise RequestError(
                "the voice cannot change once the session has spoken",
                "open another session",
                code="cannot_update_voice",
                param=path,
            )
        output = self.audio.output.model_copy(update={"voice": voice})
        return self.model_copy(update={"audio": self.audio.model_copy(update={"output": output})})


def _possible(changes: Mapping[str, Any], recogniser: str | None) -> dict[str, Any]:
    """Take out what has no effect, and refuse what would have one that we cannot give; see the module's text."""
    possible = {name: value for name, value in changes.items() if name not in UNCHANGED}
    check_tools(possible)
    if possible.get("prompt") is not None:
        raise _impossible(
            "session.prompt", "prompts stored elsewhere cannot be used", "send their text as instructions"
        )
    possible.pop("tracing", None)
    if possible.pop("truncation", None) == "disabled":
        raise _impossible("session.truncation", "the oldest turns are forgotten when the context is full", 'use "auto"')
    audio = possible.get("audio")
    if not isinstance(audio, Mapping):
        return possible
    possible["audio"] = audio = dict(audio)
    if isinstance(audio.get("input"), Mapping):
        audio["input"] = heard = {name: v for name, v in audio["input"].items() if name != "noise_reduction"}
        if recogniser is None:
            heard.pop("transcription", None)
        elif isinstance(wanted := heard.get("transcription"), Mapping):
            heard["transcription"] = {**wanted, "model": recogniser}
        if isinstance(detection := heard.get("turn_detection"), Mapping):
            heard["turn_detection"] = {name: v for name, v in detection.items() if name != "idle_timeout_ms"}
    if isinstance(audio.get("output"), Mapping):
        audio["output"] = spoken = dict(audio["output"])
        if isinstance(voice := spoken.get("voice"), Mapping):
            spoken["voice"] = voice.get("id")
        if spoken.get("speed") not in (None, 1, 1.0):
            raise _impossible("session.audio.output.speed", "the model speaks at its own speed", "use 1.0")
    return possible


def check_tools(possible: dict[str, Any]) -> None:
    """Accept tools, which the model then does not call; refuse to be made to call one."""
    tools = possible.pop("tools", None)
    if tools is not None and (not isinstance(tools, list) or len(tools) > MOST_TOOLS):
        raise RequestError(f"tools are no list of at most {MOST_TOOLS}", code="invalid_value", param="session.tools")
    choice = possible.get("tool_choice")
    if choice not in (None, "auto", "none"):
        raise _impossible("session.tool_choice", "the model calls no tools", 'use "auto" or "none"')


def _impossible(path: str, problem: str, remedy: str) -> RequestError:
    return RequestError(problem, remedy, code="unsupported_value", param=path)


def _merged(current: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by parts: an object is changed field by field, unless it becomes one of another type."""
    merged = dict(current)
    for name, value in changes.items():
        before = current.get(name)
        if (
            isinstance(value, Mapping)
            and isinstance(before, dict)
            and value.get("type", before.get("type")) == before.get("type")
        ):
            merged[name] = _merged(before, value)
        elif value is None and name not in NULL_MEANS:
            merged.pop(name, None)  # its default
        else:
            merged[name] = value
    return merged
