"""A server for clients that others wrote, each in an environment of its own below `build/clients`."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine import Engine
from omni2_engine.audio.source import read_native
from omni2_engine.live.events import Event, SoundMade
from omni2_export.build import BuildRequest, build_engine
from omni2_export.build.precision import PRESETS
from omni2_export.checkpoint import open_checkpoint
from omni2_serve.engine_host import engine_host
from omni2_serve.limits import ServiceLimits
from omni2_serve.service import Service

from ..serve.client import pcm
from ..serve.running import RunningServer

QUESTION = "112-0.ogg"  # "Hey, how do you spell road?"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("--clients") else True


class InRealTime:
    """A live conversation whose sound comes no faster than it is played, so that an answer can be interrupted."""

    def __init__(self, conversation: Any) -> None:
        self._conversation = conversation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conversation, name)

    def __aiter__(self) -> InRealTime:
        return self

    async def __anext__(self) -> Event:
        event: Event = await anext(self._conversation)
        if isinstance(event, SoundMade):
            await asyncio.sleep(event.chunk.duration)
        return event


@pytest.fixture(scope="session")
def address(repository: Path) -> Iterator[str]:
    """Where a server of the demonstration model listens; `make demo` uses the same engine directory."""
    paths = CheckpointPaths.below(repository / "examples" / "model")
    opened, path = open_checkpoint(paths.model, decoder=paths.decoder), repository / "build" / "demo" / "engine"
    build_engine(BuildRequest(opened, path, [repository / "examples" / "voice.wav"], PRESETS["balanced"]))
    with Engine.load(path, sessions=2) as engine:
        host = engine_host(engine, typed_turns=True)
        paced = replace(host, open=lambda *settings: InRealTime(host.open(*settings)))  # type: ignore[arg-type, return-value]
        server = RunningServer(Service(paced, ServiceLimits(sessions=8)))
        yield server.address
        server.stop()


@pytest.fixture(scope="session")
def recording(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A question with a long answer, as a WAV of 24 kHz, 16 bits, mono."""
    path = tmp_path_factory.mktemp("recording") / "question.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(pcm(*read_native(repository / "examples" / "questions" / QUESTION)))
    return path
