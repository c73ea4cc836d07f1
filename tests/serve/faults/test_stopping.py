"""A server that is killed in the middle of answers, and one that is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from ..client import Client, connect
from .conftest import Faulty, begin

CLIENTS = 4  # as many as have a place


async def heard(client: Client) -> tuple[str | None, int | None]:
    """Reads until the connection ends; the status of the last response, and the close code that came."""
    status = None
    try:
        while True:
            if (event := await client.next())["type"] == "response.done":
                status = event["response"]["status"]
    except ConnectionClosed as closed:
        return status, closed.rcvd.code if closed.rcvd else None


async def answers(address: str, begun: int, then: Any) -> list[tuple[str | None, int | None, bytes]]:
    """Clients who ask at once; when that many answers have begun something happens.

    Returns:
        Of each client, how its answer ended, with which code its connection was closed, and what it heard.
    """
    connected, begins = asyncio.Barrier(CLIENTS), asyncio.Semaphore(0)

    async def one() -> tuple[str | None, int | None, bytes]:
        async with connect(address) as client:
            await connected.wait()
            try:
                response = await begin(client)
                begins.release()
            except ConnectionClosed:  # before its answer began
                return None, None, b""
            status, code = await heard(client)
            return status, code, client.sound(response)

    async def happen() -> None:
        for _ in range(begun):
            await begins.acquire()
        then()

    *found, _ = await asyncio.gather(*(one() for _ in range(CLIENTS)), happen())
    return found


def test_a_server_killed_in_mid_answer(new_faulty: Any) -> None:
    """Its clients see it at once and have the beginnings of their answers; another on its port takes them in."""
    faulty: Faulty = new_faulty()
    port = faulty.address.partition(":")[2]
    found = asyncio.run(answers(faulty.address, 1, lambda: os.kill(faulty.process.pid, signal.SIGKILL)))
    assert not all(status == "completed" for status, _, _ in found)
    for status, code, sound in found:
        assert code is None and faulty.solo.startswith(sound)
        assert sound == faulty.solo or status is None
    assert faulty.process.wait() == -signal.SIGKILL
    another: Faulty = new_faulty("--port", port)
    assert another.address == faulty.address
    asyncio.run(another.undisturbed())
    assert another.is_back_to_zero()


def test_a_server_told_to_stop_finishes_its_answers(faulty: Faulty) -> None:
    """Each is whole, then the connection is closed with 1001; meanwhile it lets no one in and says so."""
    said = [httpx.get(f"http://{faulty.address}/readyz").status_code]

    def ask_whether_it_is_ready() -> None:
        try:
            while True:
                said.append(httpx.get(f"http://{faulty.address}/readyz").status_code)
        except httpx.TransportError:  # it is gone
            pass

    asking = threading.Thread(target=ask_whether_it_is_ready)
    asking.start()
    found = asyncio.run(answers(faulty.address, CLIENTS, lambda: os.kill(faulty.process.pid, signal.SIGTERM)))
    assert found == [("completed", 1001, faulty.solo)] * CLIENTS
    assert faulty.process.wait() == 0
    asking.join()
    assert said[0] == 200 and said[-1] == 503 and said == sorted(said)


def test_a_second_signal_cuts_answers_off(faulty: Faulty) -> None:
    """Those who hear it have the beginnings of their answers, and the process ends."""

    def twice() -> None:
        os.kill(faulty.process.pid, signal.SIGTERM)
        with pytest.raises(httpx.TransportError):
            while httpx.get(f"http://{faulty.address}/readyz").status_code == 200:
                pass
            os.kill(faulty.process.pid, signal.SIGINT)
            while True:
                httpx.get(f"http://{faulty.address}/readyz")

    found = asyncio.run(answers(faulty.address, CLIENTS, twice))
    assert all(faulty.solo.startswith(sound) for _, _, sound in found)
    assert faulty.process.wait() == 0
