"""Round trips to several servers, in turns."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.asyncio.server import ServerConnection, serve

from omni2_bench.lab.hop import round_trips

ANSWERS = {"session.update": "session.updated", "input_audio_buffer.clear": "input_audio_buffer.cleared"}


def test_servers_have_their_turns_one_after_the_other() -> None:
    heard: list[str] = []

    async def main() -> list[list[float]]:
        async def answer(connection: ServerConnection) -> None:
            assert connection.request is not None
            await connection.send(json.dumps({"type": "session.created"}))
            async for message in connection:
                kind = json.loads(message)["type"]
                heard.append(f"{connection.request.path[1:]} {kind}")
                if kind in ANSWERS:
                    await connection.send(json.dumps({"type": ANSWERS[kind]}))

        async with serve(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await round_trips([f"ws://127.0.0.1:{port}/{name}" for name in ("a", "b")], None, 3)

    seconds = asyncio.run(main())
    assert [len(mine) for mine in seconds] == [3, 3]
    one_round = [f"{name} input_audio_buffer.{kind}" for name in ("a", "b") for kind in ("append", "clear")]
    assert heard == ["a session.update", "b session.update", *3 * one_round]


def test_a_server_that_complains_ends_it() -> None:
    async def main() -> None:
        async def complain(connection: ServerConnection) -> None:
            await connection.send(json.dumps({"type": "error", "error": {"message": "no"}}))
            await connection.wait_closed()

        async with serve(complain, "127.0.0.1", 0) as server:
            await round_trips([f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"], None, 3)

    with pytest.raises(RuntimeError, match="no"):
        asyncio.run(main())
