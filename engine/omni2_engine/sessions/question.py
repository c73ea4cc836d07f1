"""What a turn is asked, as its caller gives it: sound or text, and functions that look on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from omni2_engine.audio.frames import Frame
from omni2_engine.audio.source import AudioInput, read_audio
from omni2_engine.errors import AudioError, SettingError
from omni2_engine.model.config import WHISPER_SAMPLE_RATE
from omni2_engine.sessions.runtime import Runtime
from omni2_engine.sessions.state import RunningTurn
from omni2_engine.turn.options import ARGUMENTS, SessionOptions, TurnOptions
from omni2_engine.turn.run import Forced, Hooks, OnText, Steer

Floats = NDArray[np.float32]
Frames = Iterator[Frame] | AsyncIterator[Frame]


class SpokenArguments(TypedDict, total=False):
    """What goes with the audio of a turn, as keyword arguments; each is described at `Session.stream`."""

    sample_rate: int | None
    on_text: OnText | None
    forced: Forced | None


class PreparedArguments(SpokenArguments, TurnOptions, total=False):
    """Arguments of `Session.prepare` beside the audio."""


class QuestionArguments(SpokenArguments, total=False):
    """The question of a turn beside its audio, likewise."""

    text: str | None
    steer: Steer | None


class TurnArguments(QuestionArguments, TurnOptions, total=False):
    """Arguments of `Session.stream` beside the audio."""


class SessionArguments(QuestionArguments, SessionOptions, total=False):
    """Arguments of `Engine.stream` beside the audio."""


@dataclass(frozen=True)
class Asked:
    """What a turn is asked. See `Session.stream` for each."""

    audio: AudioInput | Frames | None = None
    sample_rate: int | None = None
    text: str | None = None
    on_text: OnText | None = None
    steer: Steer | None = None
    forced: Forced | None = None

    def heard(self, runtime: Runtime) -> Asked:
        """With frames heard to the end of the turn; the question itself if it is none.

        Raises:
            AudioError: see `FrameListener`, or frames are asynchronous.
        """
        if isinstance(self.audio, AsyncIterator):
            raise AudioError("the frames come asynchronously", "use astream")
        if not is_frames(self.audio):
            return self
        speech = runtime.listener.listen(self.audio, self.sample_rate)
        return replace(self, audio=speech, sample_rate=WHISPER_SAMPLE_RATE)

    async def aheard(self, runtime: Runtime) -> Asked:
        """`heard` for a coroutine.

        Raises:
            AudioError: see `FrameListener`, or frames are not asynchronous and would hold the event loop.
        """
        if is_frames(self.audio):
            raise AudioError("these frames would hold the event loop", "pass an asynchronous iterator, or use stream")
        if not isinstance(self.audio, AsyncIterator):
            return self
        speech = await runtime.listener.alisten(self.audio, self.sample_rate)
        return replace(self, audio=speech, sample_rate=WHISPER_SAMPLE_RATE)

    @property
    def hooks(self) -> Hooks:
        """The functions that look on, and the ids to go on with."""
        return self.on_text, self.steer, self.forced

    def read(self, runtime: Runtime, turn: RunningTurn) -> Floats | None:
        """The waveform of a spoken turn, (n,) float32 at 16 kHz; None for a typed one.

        Raises:
            AudioError: the audio cannot be used.
            SettingError: it is neither spoken nor typed, or the text cannot be.
        """
        if (self.audio is None) == (self.text is None):
            raise SettingError("a turn is either spoken or typed", "give audio or text, and not both")
        if self.text is not None:
            if not isinstance(self.text, str):
                raise SettingError(f"a typed turn is a {type(self.text).__name__}", "give a str")
            turn.options.check_typed(runtime.pipeline.config)
            runtime.prompts.check_typed(self.text, "typed turn")
            turn.typed = self.text
            return None
        with turn.recorder.span("frontend"):
            window = runtime.pipeline.config.encoder.samples / 16_000
            return read_audio(cast(AudioInput, self.audio), self.sample_rate, window, turn.options.long)


def is_frames(audio: object) -> TypeGuard[Iterator[Frame]]:
    """Whether these are frames, one after the other. An open file is an iterator, too, and none of frames."""
    return isinstance(audio, Iterator) and not hasattr(audio, "read")


def question_and_options(
    audio: AudioInput | Frames | None, arguments: Mapping[str, Any]
) -> tuple[Asked, dict[str, Any]]:
    """Tell the question of `Session.stream`'s arguments from the options."""
    question = {name: value for name, value in arguments.items() if name in ARGUMENTS}
    options = {name: value for name, value in arguments.items() if name not in ARGUMENTS}
    return Asked(audio, **question), options
