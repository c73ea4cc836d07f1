"""A server for clients that others wrote, each in an environment of its own below `build/clients`."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from omni2_engine import Engine
from omni2_engine.audio.source import read_native
from omni2_serve.engine_host import engine_host
from omni2_serve.limits import ServiceLimits
from omni2_serve.service import Service

from ..held_answers import holding
from ..serve.client import pcm
from ..serve.running import RunningServer

QUESTION = "112-0.ogg"  # "Hey, how do you spell road?"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("--clients") else True


@pytest.fixture(scope="session")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file is there, an answer goes no further than its first sound until it is interrupted."""
    return tmp_path_factory.mktemp("hold") / "hold"


@pytest.fixture(scope="session")
def address(demo_engine_dir: Path, hold: Path) -> Iterator[str]:
    """Where a server of the demonstration model listens."""
    with Engine.load(demo_engine_dir, sessions=2) as engine:
        host = holding(engine_host(engine, typed_turns=True, chunks="fixed"), held=hold.exists)
        server = RunningServer(Service(host, ServiceLimits(sessions=8)))
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
