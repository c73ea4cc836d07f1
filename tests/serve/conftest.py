"""Servers in this process, with the tiny engine unless a test brings another host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omni2_engine import Engine
from omni2_serve.access import Access
from omni2_serve.engine_host import engine_host
from omni2_serve.host import Host
from omni2_serve.limits import ServiceLimits
from omni2_serve.recogniser.base import Recogniser
from omni2_serve.service import Service

from .running import RunningServer


@pytest.fixture(scope="session")
def served_engine(tiny_engine_dir: Path) -> Iterator[Engine]:
    """The tiny engine for four conversations."""
    with Engine.load(tiny_engine_dir, threads=1, sessions=4, warm_up=False) as engine:
        yield engine


@pytest.fixture(scope="session")
def host(served_engine: Engine) -> Host:
    """Its sound does not depend on how fast the machine is."""
    return engine_host(served_engine, typed_turns=True, chunks="fixed")


@pytest.fixture
def new_server(host: Host) -> Iterator[Any]:
    """Makes servers with limits and access of their own."""
    servers: list[RunningServer] = []

    def make(
        limits: ServiceLimits | None = None,
        access: Access | None = None,
        host: Host = host,
        recogniser: Recogniser | None = None,
    ) -> RunningServer:
        service = Service(host, limits or ServiceLimits(drain=2.0), access or Access(), recogniser=recogniser)
        servers.append(RunningServer(service))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def server(new_server: Any) -> RunningServer:
    return new_server()
