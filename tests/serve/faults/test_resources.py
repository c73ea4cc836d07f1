"""Too many clients, clients that do not read, rubbish, full disks and a clock that jumps."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import InvalidStatus

from ...waiting import SOON, eventually
from ..client import Client, connect
from .conftest import KEY, Faulty, asked

PLACES, CROWD = 4, 200
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
HOUR = 3600


def test_a_crowd_before_a_server_with_four_places(faulty: Faulty) -> None:
    """Four talk undisturbed; the others are told at once when to come again, and take nothing."""
    refused: list[str] = []
    all_told = asyncio.Event()

    async def one() -> bytes | None:
        try:
            async with connect(faulty.address) as client:
                sound = await asked(client)
                await all_told.wait()
                return sound + await asked_again(client)
        except InvalidStatus as error:
            assert error.response.status_code == 503
            refused.append(error.response.headers["Retry-After"])
            if len(refused) == CROWD - PLACES:
                all_told.set()
            return None

    async def asked_again(client: Client) -> bytes:
        done = await client.ask("and now")
        return b"" if done["status"] == "completed" else b"it failed"

    async def crowd() -> list[bytes | None]:
        return await asyncio.gather(*(one() for _ in range(CROWD)))

    found = asyncio.run(crowd())
    assert Counter(found) == {None: CROWD - PLACES, faulty.solo: PLACES}
    assert all(int(seconds) > 0 for seconds in refused)
    assert faulty.is_back_to_zero()
    assert faulty.process.scrape().total("omni2_refused_total", reason="full") == CROWD - PLACES


def test_a_client_that_never_reads(faulty: Faulty) -> None:
    """It is given up once it has left its events unread for too long; another hears its answers meanwhile."""
    host, _, port = faulty.address.partition(":")
    hello = (
        f"GET /v1/realtime HTTP/1.1\r\nHost: {faulty.address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
    event = b'{"type": "session.update", "session": {"type": "realtime"}}'
    frame = bytes([0x81, 0x80 | len(event)]) + bytes(4) + event  # masked with zeros

    def flood() -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            client.sendall(hello)
            try:
                while True:
                    client.sendall(100 * frame)
            except ConnectionError:  # it was given up
                pass

    flooding = threading.Thread(target=flood)
    flooding.start()
    eventually(lambda: faulty.process.scrape().total("omni2_sessions") == 1)

    async def meanwhile() -> None:
        while flooding.is_alive():
            await faulty.undisturbed()

    asyncio.run(meanwhile())
    flooding.join()
    assert faulty.is_back_to_zero()


def test_a_client_that_sends_rubbish(faulty: Faulty) -> None:
    """Each piece is answered with an error, and others hear what they hear alone."""
    pieces = ["{", "[]", '"x"', "\x00", '{"type": "nothing"}', '{"type": "session.update", "session": 1}']

    async def rage(done: asyncio.Event) -> int:
        errors = 0
        async with open_socket(f"ws://{faulty.address}/v1/realtime", open_timeout=SOON, ping_interval=None) as client:
            while not done.is_set():
                for piece in [*pieces, os.urandom(100)]:
                    await client.send(piece)
                sound = base64.b64encode(os.urandom(4800)).decode()
                await client.send(json.dumps({"type": "input_audio_buffer.append", "audio": sound}))
                found = 0
                while found < len(pieces) + 1:
                    found += json.loads(await client.recv())["type"] == "error"
                errors += found
        return errors

    async def main() -> int:
        done = asyncio.Event()
        raging = asyncio.create_task(rage(done))
        await asyncio.gather(*(faulty.undisturbed() for _ in range(3)))
        done.set()
        return await raging

    assert asyncio.run(main()) > 0
    assert faulty.is_back_to_zero()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Processes that are started meanwhile can write that many bytes to a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("full", ["from the beginning", "in the middle"])
def test_a_disk_without_room_for_the_log(new_faulty: Any, tmp_path: Path, full: str) -> None:
    """The log is lost, and nothing else: clients are answered, counters are told, and the server stops in order."""
    log = tmp_path / "server.log"
    if full == "in the middle":
        with largest_file(4096):
            faulty: Faulty = new_faulty(log=log)
    else:
        faulty = new_faulty(log=Path("/dev/full"))
    for _ in range(20):  # two lines a session
        asyncio.run(faulty.undisturbed())
    assert full == "from the beginning" or log.stat().st_size == 4096
    assert faulty.process.scrape().total("omni2_turns_total", reason="end") >= 20
    assert faulty.is_back_to_zero()
    assert faulty.process.stop() == 0


def test_a_clock_that_jumps(new_faulty: Any, tmp_path: Path) -> None:
    """An hour forth, and back, under a conversation: it goes on, and short-lived keys live as long as they should."""
    if not FAKETIME.is_file():
        pytest.skip("libfaketime is not installed")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # only the time of day jumps, as with a system's clock
        "OMNI2_API_KEY": KEY,
    }
    faulty: Faulty = new_faulty(environment=environment)

    def secret() -> tuple[str, int]:
        made = httpx.post(
            f"http://{faulty.address}/v1/realtime/client_secrets",
            json={"expires_after": {"anchor": "created_at", "seconds": 3000}},
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=SOON,
        ).json()
        return made["value"], made["expires_at"]

    async def opens(key: str) -> None:
        async with connect(faulty.address, key=key) as client:
            assert await asked(client) == faulty.solo

    async def main() -> None:
        async with connect(faulty.address, key=KEY) as client:
            assert await asked(client) == faulty.solo
            before, expires = secret()
            for seconds in (HOUR, -HOUR, 0):
                clock.write_text(f"{seconds:+d}")
                assert (await client.ask("and now"))["status"] == "completed"
                await opens(before)  # fifty minutes have not passed
                later, then = secret()
                await opens(later)
                assert abs(then - expires - seconds) < HOUR / 2  # it did jump

    asyncio.run(main())
    assert faulty.is_back_to_zero()
