"""What a proxy before a Realtime server costs every frame: round trips through it and past it, in turns.

python -m omni2_bench.lab.hop ws://127.0.0.1:8001/v1/realtime?model=omni2 ws://127.0.0.1:8000/v1/realtime?model=omni2
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from time import perf_counter
from typing import Annotated

import numpy as np
import typer
from websockets.asyncio.client import ClientConnection, connect

from omni2_bench.common.machine import load
from omni2_bench.common.results import table

FRAME = 0.02  # seconds
RATE = 24_000
SOUND = base64.b64encode(bytes(2 * round(FRAME * RATE))).decode()
PERCENTILES = (50, 90, 99)


def main(
    urls: Annotated[list[str], typer.Argument(help="of Realtime servers, the one without a proxy first")],
    rounds: Annotated[int, typer.Option(min=2, help="round trips with each")] = 3000,
    key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="API key")] = None,
) -> None:
    """Send 20 ms of sound every 20 ms, to one server after the other, and wait for an answer behind each."""
    loads = [load()]
    found = np.asarray(asyncio.run(round_trips(urls, key, rounds)))
    milliseconds = 1e3 * np.percentile(found, PERCENTILES, axis=1).T
    header = ["round trip, ms", *(f"p{share}" for share in PERCENTILES), "median more than the first"]
    rows = [
        [url, *(f"{value:.2f}" for value in values), f"{values[0] - milliseconds[0][0]:.2f}"]
        for url, values in zip(urls, milliseconds, strict=True)
    ]
    typer.echo(table(header, rows))
    loads.append(load())
    typer.echo(f"{rounds} round trips each; load average {loads[0]:.1f} at the beginning, {loads[1]:.1f} at the end")


async def round_trips(urls: list[str], key: str | None, rounds: int) -> list[list[float]]:
    """Seconds of every round trip, by server; all servers have their turn before the first has its next."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connect(url, additional_headers=headers)) for url in urls]
        for socket in sockets:
            session = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
            await _answered(socket, [{"type": "session.update", "session": session}], "session.updated")
        seconds: list[list[float]] = [[] for _ in urls]
        for _ in range(rounds):
            for socket, mine in zip(sockets, seconds, strict=True):
                began = perf_counter()
                frame = {"type": "input_audio_buffer.append", "audio": SOUND}
                await _answered(socket, [frame, {"type": "input_audio_buffer.clear"}], "input_audio_buffer.cleared")
                mine.append(perf_counter() - began)
                await asyncio.sleep(max(began + FRAME - perf_counter(), 0.0))
        return seconds


async def _answered(socket: ClientConnection, events: Sequence[Mapping[str, object]], kind: str) -> None:
    """Send events, and read up to their answer."""
    for event in events:
        await socket.send(json.dumps(event))
    while (event := json.loads(await socket.recv()))["type"] != kind:
        if event["type"] == "error":
            raise RuntimeError(event["error"]["message"])


if __name__ == "__main__":
    typer.run(main)
