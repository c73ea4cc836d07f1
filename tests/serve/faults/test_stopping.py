"""A server that is killed in the middle of answers, and one that is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed

from ...waiting import SOON, eventually
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


async def answers(address: str, then: Callable[[], object]) -> list[tuple[str | None, int | None, bytes]]:
    """Clients who ask at once; when each has heard the beginning of its answer something happens.

    Returns:
        Of each client, how its answer ended, with which code its connection was closed, and what it heard.
    """
    begun = asyncio.Barrier(CLIENTS + 1)

    async def one() -> tuple[str | None, int | None, bytes]:
        async with connect(address) as client:
            response = await begin(client)
            await client.until("response.output_audio.delta")
            await begun.wait()
            status, code = await heard(client)
            return status, code, client.sound(response)

    async def happen() -> None:
        await begun.wait()
        await asyncio.to_thread(then)

    async with asyncio.timeout(SOON):
        *found, _ = await asyncio.gather(*(one() for _ in range(CLIENTS)), happen())
    return found


def are_beginnings(found: list[tuple[str | None, int | None, bytes]], code: int | None, whole: bytes) -> bool:
    """Each client has heard a part of its answer and no end of it, and its connection was closed with this code."""
    return all(
        (status, closed) == (None, code) and 0 < len(sound) < len(whole) and whole.startswith(sound)
        for status, closed, sound in found
    )


def test_a_server_killed_in_mid_answer(holding: Faulty, hold: Path, new_faulty: Any) -> None:
    """Its clients see it at once and have the beginnings of their answers; another on its port takes them in."""
    port = holding.address.partition(":")[2]
    hold.touch()
    found = asyncio.run(answers(holding.address, lambda: os.kill(holding.process.pid, signal.SIGKILL)))
    assert are_beginnings(found, None, holding.solo)
    assert holding.process.wait() == -signal.SIGKILL
    another: Faulty = new_faulty("--port", port)
    assert another.address == holding.address
    asyncio.run(another.undisturbed())
    assert another.is_back_to_zero()


def test_a_server_told_to_stop_finishes_its_answers(holding: Faulty, hold: Path) -> None:
    """Each is whole, then the connection is closed with 1001; meanwhile it says that it lets no client in."""

    def is_ready() -> bool:
        status = httpx.get(f"http://{holding.address}/readyz", timeout=SOON).status_code
        assert status in (200, 503)
        return status == 200

    def stop() -> None:
        assert is_ready()
        os.kill(holding.process.pid, signal.SIGTERM)
        eventually(lambda: not is_ready())
        hold.unlink()

    hold.touch()
    found = asyncio.run(answers(holding.address, stop))
    assert found == [("completed", 1001, holding.solo)] * CLIENTS
    assert holding.process.wait() == 0


def test_a_second_signal_cuts_answers_off(holding: Faulty, hold: Path) -> None:
    """Those who hear them have the beginnings of their answers, and the process ends."""

    def twice() -> None:
        os.kill(holding.process.pid, signal.SIGTERM)
        eventually(lambda: httpx.get(f"http://{holding.address}/readyz", timeout=SOON).status_code == 503)
        os.kill(holding.process.pid, signal.SIGINT)

    hold.touch()
    found = asyncio.run(answers(holding.address, twice))
    assert are_beginnings(found, 1012, holding.solo)
    assert holding.process.wait() == 0
