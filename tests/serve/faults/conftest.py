"""Servers as processes of their own, what their clients hear when nothing is wrong, and what is left afterwards."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from omni2_bench.common.server_process import NOTHING, ServerProcess
from omni2_bench.soak.samples import look
from omni2_bench.soak.verdict import left

from ...ports import free_port
from ...waiting import SOON, eventually
from ..client import Client, connect

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # faults are made, and what is left is read, as Linux has it

PLAIN = ("--threads", "1", "--typed-turns", "--chunks", "fixed", "--drain", f"{SOON:g}")  # one question, one sound
QUESTION = "count from one to twenty"  # with an answer of two chunks
KEY = "0123456789abcdef"  # where a server wants one
STAND_INS = Path(__file__).parent / "stand_ins"


class Faulty:
    """A server in trouble.

    Args:
        process: it.
        solo: the sound of `QUESTION` on a server without any.
    """

    def __init__(self, process: ServerProcess, solo: bytes) -> None:
        self.process, self.solo = process, solo
        eventually(lambda: not look(process, 0.0).busy)  # its last client has gone
        self._before = look(process, 0.0)

    @property
    def address(self) -> str:
        return self.process.address

    async def undisturbed(self, address: str | None = None) -> None:
        """A client of its own hears what it would hear alone."""
        async with connect(address or self.address, key=KEY) as client:
            assert await asked(client) == self.solo

    def is_back_to_zero(self) -> bool:
        """Waits until no session is left, nor memory, nor a descriptor."""
        held: list[str] = []

        def nothing() -> bool:
            held[:] = left(self._before, look(self.process, 0.0))
            return not held

        return eventually(nothing, held)


async def asked(client: Client) -> bytes:
    """The sound of a whole answer."""
    done = await client.ask(QUESTION)
    assert done["status"] == "completed"
    return client.sound(done["id"])


async def begin(client: Client) -> str:
    """Ask; returns the response's id once it has begun."""
    await client.type(QUESTION)
    await client.send("response.create")
    created = await client.until("response.created")
    response_id: str = created["response"]["id"]
    return response_id


@pytest.fixture(scope="package")
def solo(tiny_engine_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The sound of `QUESTION` where nothing is wrong."""

    async def hear(address: str) -> bytes:
        async with connect(address) as client:
            return await asked(client)

    with ServerProcess(tiny_engine_dir, tmp_path_factory.mktemp("solo") / "log", *PLAIN) as process:
        sound = asyncio.run(hear(process.address))
    assert sound
    return sound


@pytest.fixture
def new_faulty(tiny_engine_dir: Path, tmp_path: Path, solo: bytes) -> Iterator[Any]:
    """Starts servers; what is made once is made before they are looked at."""
    started: list[ServerProcess] = []

    def start(*options: str, log: Path = tmp_path / "server.log", environment: Mapping[str, str] = NOTHING) -> Faulty:
        started.append(ServerProcess(tiny_engine_dir, log, *PLAIN, *options, grace=2 * SOON, environment=environment))
        asyncio.run(Faulty(started[-1], solo).undisturbed())
        return Faulty(started[-1], solo)

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def faulty(new_faulty: Any) -> Faulty:
    """A server with four places."""
    return new_faulty()


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """While this file is there, an answer of `holding` goes no further than its first sound."""
    return tmp_path / "hold"


@pytest.fixture
def holding(new_faulty: Any, repository: Path, hold: Path) -> Faulty:
    """A server whose answers can be held; told to stop, it waits a day for them. Its port stays free behind it."""
    path = os.pathsep.join([str(STAND_INS), str(repository), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"OMNI2_TEST_HOLD": str(hold), "PYTHONPATH": path}
    held: Faulty = new_faulty("--drain", "86400", "--port", str(free_port()), environment=environment)
    return held
