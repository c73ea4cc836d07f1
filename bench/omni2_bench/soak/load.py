"""Conversations that begin at their times until there are enough, or the load is told to stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from omni2_bench.load.caller import Caller, Server
from omni2_bench.load.clock import Clock
from omni2_bench.load.recordings import RecordedQuestion
from omni2_bench.load.records import Call
from omni2_bench.load.visits import Visit


async def converse(
    server: Server, visits: Iterable[Visit], recordings: list[RecordedQuestion], path: Path, stop: asyncio.Event
) -> list[Call]:
    """Make conversations, each at its time.

    Args:
        server: to call.
        visits: what to do, in the order of their beginnings.
        recordings: the questions.
        path: file that every conversation is written to when it ends, a line of JSON each.
        stop: when it is set no further conversation begins; those that go on come to their end.

    Returns:
        What the callers saw, in the order of the ends.
    """
    clock, calls = Clock(), list[Call]()
    with path.open("w", encoding="utf-8") as file:

        async def converse_once(visit: Visit) -> None:
            calls.append(await Caller(server, visit, recordings, clock).call())
            file.write(json.dumps(asdict(calls[-1])) + "\n")
            file.flush()

        async with asyncio.TaskGroup() as group:
            for visit in visits:
                if await _set_before(stop, visit.begins - clock.now()):
                    break
                group.create_task(converse_once(visit))
    return calls


async def _set_before(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, but no longer than this; says whether it is set."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True
