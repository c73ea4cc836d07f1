"""Two replicas under Ray Serve on this machine: `make test-ray`, which installs Ray."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

from .clusters import Cluster, command, eventually, free_port
from .talking import Stopping, Talker, open_when_free, refusal

SESSIONS, REPLICAS = 2, 2


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def address(port: int) -> str:
    return f"ws://127.0.0.1:{port}/v1/realtime?model=omni2"


@pytest.fixture(scope="module")
def cluster(tiny_engine_dir: Path, port: int) -> Iterator[Cluster]:
    options = ["--replicas", REPLICAS, "--sessions", SESSIONS, "--port", port, "--chunks", "fixed"]
    serve = command("serve", tiny_engine_dir, "--ray", *options)
    with TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # whose path has to be short, for Ray's sockets
        running = Cluster(serve, Path(folder), "replicas listen at")
        try:
            yield running
        finally:
            running.stop()


async def spread(address: str) -> list[Talker]:
    """As many sessions as there are places."""
    return [await open_when_free(address) for _ in range(SESSIONS * REPLICAS)]


async def close_code(client: Talker) -> int | None:
    return (await client.end())[1]


async def answer_or_close_code(client: Talker, number: int) -> bytes | int | None:
    """The answer to a question, or with which code the connection was closed instead."""
    try:
        return await client.ask(number)
    except (ConnectionClosed, Stopping):
        return await close_code(client)


def test_conversations_go_where_places_are_free_and_no_further(cluster: Cluster, address: str, port: int) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1/realtime/") as http:
            assert [(await http.post(path)).status_code for path in ("client_secrets", "calls")] == [501, 501]
        clients = await spread(address)  # which a router that fills one replica first could not place at once
        status, retry_after = await refusal(address)
        assert status == 503 and int(retry_after or 0) > 0
        for client in clients:
            await client.close()

    asyncio.run(main())


def test_lines_of_the_log_name_their_conversation(cluster: Cluster, address: str) -> None:
    async def names() -> list[str]:
        clients = [await open_when_free(address) for _ in range(2)]
        for client in clients:
            await client.close()
        return [client.name for client in clients]

    for name in asyncio.run(names()):
        line = f" {name} omni2_serve.realtime.connection session {name} has ended"
        eventually(lambda line=line: any(line in said for said in cluster.lines))


def test_a_replica_that_dies_takes_only_its_own_conversations_along(cluster: Cluster, address: str) -> None:
    """Its clients are told to connect again; the others' sound is what it is alone; a new replica takes its place."""

    async def main() -> None:
        alone = await open_when_free(address)
        expected = [await alone.ask(number) for number in (1, 2, 3)]
        await alone.close()
        clients = await spread(address)
        assert [await client.ask(1) for client in clients] == [expected[0]] * len(clients)
        answers = [asyncio.create_task(client.ask(2)) for client in clients]
        os.kill(cluster.replicas()[0], signal.SIGKILL)
        found = await asyncio.gather(*answers, return_exceptions=True)
        lost = [client for client, answer in zip(clients, found, strict=True) if isinstance(answer, ConnectionClosed)]
        kept = [answer for answer in found if not isinstance(answer, ConnectionClosed)]
        # an answer that had been sent to its end before the kill counts among the kept; its client is told all the same
        assert len(kept) >= SESSIONS and all(answer == expected[1] for answer in kept)
        assert [await close_code(client) for client in lost] == [1012] * len(lost)
        others = [client for client in clients if client not in lost]
        next_answers = [await answer_or_close_code(client, 3) for client in others]
        assert next_answers.count(1012) == SESSIONS - len(lost)
        assert next_answers.count(expected[2]) == len(clients) - SESSIONS
        for client in clients:
            await client.close()
        again = await spread(address)  # all places, the dead replica's among them
        assert await again[-1].ask(1) == expected[0]
        for client in again:
            await client.close()

    asyncio.run(main())


def test_when_it_is_stopped_answers_are_heard_to_their_end(cluster: Cluster, address: str) -> None:
    """No new conversation, the rest of the answer, and then 1001, in this order; idle conversations end at once."""

    async def main() -> None:
        alone = await open_when_free(address)
        expected = await alone.ask(1)
        await alone.close()
        eventually(lambda: len(cluster.replicas()) == REPLICAS)
        clients = await spread(address)
        asking, idle = clients[: SESSIONS * REPLICAS // 2], clients[SESSIONS * REPLICAS // 2 :]
        for pid in cluster.replicas():
            cluster.hold(pid)
        running = [asyncio.create_task(client.begin(1)) for client in asking]
        await asyncio.gather(*running)
        cluster.terminate()
        assert [await client.end() for client in idle] == [(["server_stopping"], 1001)] * len(idle)
        status, retry_after = await refusal(address)
        assert status == 503 and int(retry_after or 0) > 0
        assert all(client.sounds == [] for client in asking)
        for pid in cluster.replicas():
            cluster.release(pid)
        for client in asking:
            kinds, code = await client.end()
            assert kinds[-2:] == ["response.done", "server_stopping"] and code == 1001
            assert client.sounds == [expected]
        assert await asyncio.to_thread(cluster.join) == 0

    asyncio.run(main())
    eventually(lambda: not cluster.replicas())
