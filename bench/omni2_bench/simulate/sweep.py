"""Sizes × sessions × schedules on one device at stated efficiencies, and the efficiency that a goal asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from omni2_bench.simulate.device import DeviceLimits
from omni2_bench.simulate.load import AnswerLength, SimulatedServer, converse, talks
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.original import LimitTimes, SerialServer
from omni2_bench.simulate.ours import OverlappedServer
from omni2_bench.simulate.turns import SimulatedTurn, figures

OVERLAPPED, SHARED, ORIGINAL = "overlapped", "one call at a time", "original"
OURS = (OVERLAPPED, SHARED)  # the extremes between which streams of one device slow each other
SCHEDULES = (*OURS, ORIGINAL)
LEAST = 1e-3  # the smallest efficiency that is tried
PRECISION = 1e-4  # to which an efficiency is found


def server_of(schedule: str, model: SimulatedModel, limits: DeviceLimits) -> SimulatedServer:
    """A fresh device that runs a model in one of `SCHEDULES`."""
    if schedule == ORIGINAL:
        return SerialServer(LimitTimes(model, limits), model)
    return OverlappedServer(model, limits, width=1 if schedule == SHARED else None)


def first_chunk(schedule: str, model: SimulatedModel, limits: DeviceLimits) -> float:
    """Seconds from a question to the first sound, nobody else being there."""
    # two rounds of text, so that the first chunk is no answer's last
    answer = AnswerLength(2 * model.read, 4 * model.hop)
    server, turn = server_of(schedule, model, limits), SimulatedTurn(0, 0.0)
    server.ask(turn, answer, lambda: None)
    server.simulation.run()
    return turn.first_chunk


def efficiency_for(goal: float, first_chunk: Callable[[float], float]) -> float | None:
    """The least share of the device's limits at which the first chunk comes within `goal` seconds.

    Args:
        goal: seconds.
        first_chunk: share → seconds, falling.

    Returns:
        The share, within `PRECISION`; None if even all of it is not enough.
    """
    low, high = LEAST, 1.0
    if first_chunk(high) > goal:
        return None
    if first_chunk(low) <= goal:
        return low
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if first_chunk(middle) <= goal else (middle, high)
    return high


def cells(sizes: list[str], sessions: list[int], limits: DeviceLimits, seed: int) -> Iterator[dict[str, Any]]:
    """Every size, number of sessions and schedule, for JSON; times in seconds.

    Args:
        sizes: of `PRESETS`.
        sessions: numbers of sessions.
        limits: of the device.
        seed: of the load.
    """
    for size in sizes:
        model = SimulatedModel(size)
        for count in sessions:
            load = talks(count, seed)
            longest = max((answer for talk in load for answer in talk.answers), key=lambda answer: answer.units)
            memory = model.memory(count, longest)
            for schedule in SCHEDULES:
                found = figures(converse(server_of(schedule, model, limits), load))
                yield {
                    "size": size,
                    "sessions": count,
                    "schedule": schedule,
                    **asdict(found),
                    "memory_bytes": memory,
                    "fits": memory <= limits.device.memory,
                }
