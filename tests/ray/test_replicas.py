"""Two replicas under Ray Serve on this machine: `make test-ray`, which installs Ray."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

SESSIONS, REPLICAS = 2, 2
START = 300  # seconds of patience with a loaded machine


class Cluster:
    """`omni2-engine serve --ray` in a process of its own.

    Args:
        engine: its directory.
    """

    def __init__(self, engine: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            sys.executable, "-m", "omni2_engine", "serve", str(engine), "--ray", "--replicas", str(REPLICAS),
            "--sessions", str(SESSIONS), "--port", str(port), "--chunks", "fixed",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._lines: list[str] = []
        listens = threading.Event()
        threading.Thread(target=self._read, args=(listens,), daemon=True).start()
        if not listens.wait(START):
            self.stop()
            raise AssertionError("".join(self._lines[-30:]))
        self.address = f"ws://127.0.0.1:{port}/v1/realtime?model=omni2"

    def _read(self, listens: threading.Event) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            if re.search(r"replicas listen at", line):
                listens.set()

    def replicas(self) -> list[psutil.Process]:
        """Their processes."""
        own = psutil.Process(self._process.pid).children(recursive=True)
        return [
            process
            for process in own
            if "ServeReplica" in " ".join(process.cmdline()) or "ServeReplica" in process.name()
        ]

    def stop(self) -> None:
        """End everything."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(120)
        except subprocess.TimeoutExpired:
            self._process.kill()
        subprocess.run([sys.executable, "-m", "ray.scripts.scripts", "stop", "--force"], capture_output=True)


@pytest.fixture(scope="module")
def cluster(tiny_engine_dir: Path) -> Iterator[Cluster]:
    running = Cluster(tiny_engine_dir)
    yield running
    running.stop()


def question(number: int) -> str:
    """Half a second of noise, 24 kHz s16le."""
    noise = 3000 * np.random.default_rng(number).standard_normal(12_000)
    return base64.b64encode(noise.astype("<i2").tobytes()).decode()


async def open_session(address: str) -> ClientConnection:
    client = await connect(address, max_size=None)
    assert json.loads(await client.recv())["type"] == "session.created"
    audio = {"input": {"turn_detection": None}}
    await client.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "audio": audio}}))
    while json.loads(await client.recv())["type"] != "session.updated":
        pass
    return client


async def ask(client: ClientConnection, number: int) -> bytes:
    """The sound of the answer to a recorded question."""
    content = [{"type": "input_audio", "audio": question(number)}]
    item = {"type": "message", "role": "user", "content": content}
    await client.send(json.dumps({"type": "conversation.item.create", "item": item}))
    await client.send(json.dumps({"type": "response.create"}))
    sound = b""
    while True:
        event: dict[str, Any] = json.loads(await client.recv())
        assert event["type"] != "error", event
        if event["type"] == "response.output_audio.delta":
            sound += base64.b64decode(event["delta"])
        if event["type"] == "response.done":
            assert event["response"]["status"] in ("completed", "incomplete"), event
            return sound


async def close_code(client: ClientConnection) -> int | None:
    """With what code the server closes."""
    try:
        while True:
            await client.recv()
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd is not None else None


async def open_when_free(address: str) -> ClientConnection:
    """A session as soon as there is a place."""
    async with asyncio.timeout(START):
        while True:
            try:
                return await open_session(address)
            except (InvalidStatus, ConnectionClosed, OSError):
                await asyncio.sleep(0.5)


async def spread(address: str) -> list[ClientConnection]:
    """As many sessions as there are places."""
    return [await open_when_free(address) for _ in range(SESSIONS * REPLICAS)]


def test_conversations_go_where_places_are_free_and_no_further(cluster: Cluster) -> None:
    async def main() -> None:
        clients = await spread(cluster.address)  # which a router that fills one replica first could not place at once
        with pytest.raises(InvalidStatus) as refused:
            await connect(cluster.address)
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["Retry-After"]) > 0
        for client in clients:
            await client.close()

    asyncio.run(main())


def test_a_replica_that_dies_takes_only_its_own_conversations_along(cluster: Cluster) -> None:
    """Its clients are told to connect again; the others' sound is what it is alone; a new replica takes its place."""

    async def main() -> None:
        alone = await open_when_free(cluster.address)
        expected = [await ask(alone, 1), await ask(alone, 2)]
        await alone.close()
        clients = await spread(cluster.address)
        assert [await ask(client, 1) for client in clients] == [expected[0]] * len(clients)
        answers = [asyncio.create_task(ask(client, 2)) for client in clients]
        os.kill(cluster.replicas()[0].pid, signal.SIGKILL)
        found = await asyncio.gather(*answers, return_exceptions=True)
        lost = [client for client, answer in zip(clients, found, strict=True) if isinstance(answer, ConnectionClosed)]
        kept = [answer for answer in found if not isinstance(answer, ConnectionClosed)]
        # an answer that had been sent to its end before the kill counts among the kept; its client is told all the same
        assert len(kept) >= SESSIONS and all(answer == expected[1] for answer in kept)
        assert [await close_code(client) for client in lost] == [1012] * len(lost)
        told = 0
        for client in clients:
            if client not in lost:
                try:
                    async with asyncio.timeout(5):
                        told += await close_code(client) == 1012
                except TimeoutError:
                    continue  # still open
        assert told + len(lost) == SESSIONS
        for client in clients:
            await client.close()
        again = await spread(cluster.address)  # all places, the dead replica's among them
        assert await ask(again[-1], 1) == expected[0]
        for client in again:
            await client.close()

    asyncio.run(main())
