"""Networks that stall, delay, half-close and break off, and one that loses packets."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from ..client import connect
from .conftest import QUESTION, Faulty, begin
from .proxy import Proxy

STALL, DELAY = 10.0, 0.3  # seconds


async def whole(proxy: Proxy, solo: bytes) -> None:
    """A client behind the proxy hears all of its answer."""
    async with connect(proxy.address) as client:
        done = await client.ask(QUESTION)
        assert done["status"] == "completed" and client.sound(done["id"]) == solo


def test_a_network_that_stalls(holding: Faulty, hold: Path) -> None:
    """For ten seconds in the middle of an answer: it is whole afterwards, and others hear theirs meanwhile."""

    async def main() -> None:
        async with Proxy(holding.address).running() as proxy, connect(proxy.address) as client:
            response = await begin(client)
            await client.until("response.output_audio.delta")
            with proxy.stalled():
                passed = proxy.carried
                hold.unlink()  # the rest of the answer is made, and comes no further than the proxy
                await asyncio.gather(asyncio.sleep(STALL), holding.undisturbed())
                assert proxy.carried == passed
            assert (await client.until("response.done"))["response"]["status"] == "completed"
            assert client.sound(response) == holding.solo
            assert proxy.carried > passed
            done = await client.ask(QUESTION)  # the conversation goes on
            assert done["status"] == "completed"

    hold.touch()
    asyncio.run(main())
    assert holding.is_back_to_zero()


def test_a_network_that_delays(faulty: Faulty) -> None:
    async def main() -> None:
        async with Proxy(faulty.address, DELAY).running() as proxy:
            await asyncio.gather(whole(proxy, faulty.solo), whole(proxy, faulty.solo), faulty.undisturbed())

    asyncio.run(main())
    assert faulty.is_back_to_zero()


def test_a_network_that_half_closes(faulty: Faulty) -> None:
    """A client that can send no more has left: its session ends in mid-answer, and no other is disturbed."""

    async def main() -> None:
        async with Proxy(faulty.address).running() as proxy, connect(proxy.address) as client:
            await begin(client)
            proxy.half_close()
            with pytest.raises(ConnectionClosed):
                await asyncio.gather(client.until("never"), faulty.undisturbed())
            await faulty.undisturbed()

    asyncio.run(main())
    assert faulty.is_back_to_zero()


def test_a_network_that_breaks_off(faulty: Faulty) -> None:
    """Clients lose their answers, connect again, and are let in."""

    async def main() -> None:
        async with Proxy(faulty.address).running() as proxy:
            for _ in range(3):
                async with connect(proxy.address) as first, connect(proxy.address) as second:
                    await asyncio.gather(begin(first), begin(second))
                    proxy.drop()
                    for client in (first, second):
                        with pytest.raises(ConnectionClosed):
                            await client.until("never")
            await asyncio.gather(whole(proxy, faulty.solo), faulty.undisturbed())

    asyncio.run(main())
    assert faulty.is_back_to_zero()


def test_a_network_that_loses_packets(tiny_engine_dir: Path, solo: bytes, tmp_path: Path) -> None:
    """Server and client in a network of their own whose packets are lost and late."""
    if shutil.which("unshare") is None or shutil.which("tc") is None:
        pytest.skip("unshare or tc is not installed")
    worse = "tc qdisc add dev lo root netem delay 50ms 20ms loss 5%"
    tried = subprocess.run(["unshare", "--net", *worse.split()], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this kernel, or this user, has no netem: {tried.stderr.strip().splitlines()[-1]}")
    talk = [sys.executable, "-m", "tests.serve.faults.lossy", str(tiny_engine_dir), str(tmp_path)]
    command = ["unshare", "--net", "sh", "-c", f'ip link set lo up && {worse} && exec "$@"', "sh", *talk]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [solo.hex()] * 3
