"""What all sessions of an engine share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from omni2_engine.audio.frames import Frame
from omni2_engine.errors import SettingError
from omni2_engine.memory.states import StatePool
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.model.tables import map_table
from omni2_engine.schedule.base import Schedule
from omni2_engine.sessions.prepared_turns import PreparedTurns
from omni2_engine.sessions.waiting_turns import WaitingTurns
from omni2_engine.settings.tuning import SESSIONS
from omni2_engine.stages.flow import Flow
from omni2_engine.stages.pipeline import Pipeline
from omni2_engine.system.log_names import CarryingExecutor
from omni2_engine.system.process import own
from omni2_engine.turn.playout import Playout
from omni2_engine.turn.prefix import PrefixCache
from omni2_engine.turn.prompt import PromptBuilder

Floats = NDArray[np.float32]


class VoiceFeatures(Protocol):
    """Voices by name, as the flow wants them."""

    def names(self) -> list[str]: ...
    def features(self, voice: str | None) -> Floats: ...


class Voices:
    """The voices stored in an engine directory.

    Args:
        directory: holds them.
        flow: speaks with them.
    """

    def __init__(self, directory: EngineDirectory, flow: Flow) -> None:
        self._directory = directory
        self._flow = flow
        self._features: dict[str, Floats] = {}

    def names(self) -> list[str]:
        """Their names."""
        return self._directory.voices()

    def features(self, voice: str | None) -> Floats:
        """A voice as the flow wants it, (1, mel) float32; the default voice if None.

        Raises:
            SettingError: there is no voice of that name.
        """
        name = voice or self._directory.manifest.default_voice
        if name not in self._features:
            if name not in (names := self.names()):
                raise SettingError(f"there is no voice {name!r}", f"use one of: {', '.join(names)}")
            embedding = np.asarray(map_table(self._directory.path / "voices" / f"{name}.npy"), np.float32)
            self._features[name] = self._flow.speaker_features(embedding)
        return self._features[name]


class FrameListener(Protocol):
    """Hears a turn as it is spoken; frames are as of `LiveConversation.feed`."""

    def listen(self, frames: Iterator[Frame], sample_rate: int | None) -> Floats:
        """Take frames until the turn is over, or there are no more.

        Returns:
            What was said, (n,) float32 at 16 kHz; little more of it than the model hears.

        Raises:
            AudioError: a frame is no sound, has no rate or an impossible one, or there is no speech.
        """
        ...

    async def alisten(self, frames: AsyncIterator[Frame], sample_rate: int | None) -> Floats:
        """`listen` for a coroutine."""
        ...


@dataclass(eq=False)
class Runtime:
    """What a session needs besides its own state.

    Args:
        pipeline: the stages.
        prompts: lays prompts out.
        prefixes: beginnings of prompts that are prefilled already.
        voices: to speak with.
        listener: hears questions that come in frames.
        states: memory of conversations and turns.
        schedule: runs the steps of turns.
        waiting: turns that have made no sound yet.
        playout: foresees when a player may start.
        max_context: positions of a conversation's KV cache.
        max_speech: positions of the speech LM in one turn at most.

    Attributes:
        prepared_turns: what they have saved and wasted.
        process: id of the process that loaded the engine, the only one that can use it.
    """

    pipeline: Pipeline
    prompts: PromptBuilder
    prefixes: PrefixCache
    voices: VoiceFeatures
    listener: FrameListener
    states: StatePool
    schedule: Schedule
    waiting: WaitingTurns
    playout: Playout
    max_context: int
    max_speech: int

    def __post_init__(self) -> None:
        self.prepared_turns = PreparedTurns()
        self.process = own(self)

    @cached_property
    def helpers(self) -> CarryingExecutor:
        """Threads for what a coroutine must not do itself; made when a first coroutine asks."""
        return CarryingExecutor(SESSIONS.helpers, thread_name_prefix="omni2-helper")

    def close(self) -> None:
        """End what runs. The helpers are let go: they end with their work, and a coroutine whose turn ends later makes
        new ones."""
        self.schedule.close()
        self.__dict__.pop("helpers", None)
