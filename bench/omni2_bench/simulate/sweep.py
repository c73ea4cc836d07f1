"""First chunks of one session, and sizes × sessions × schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from omni2_bench.simulate import fit
from omni2_bench.simulate.device import DeviceLimits
from omni2_bench.simulate.load import AnswerLength, SimulatedServer, converse, talks
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.original import SerialServer
from omni2_bench.simulate.ours import OverlappedServer
from omni2_bench.simulate.paper import table6
from omni2_bench.simulate.trace import CallSpan
from omni2_bench.simulate.turns import SimulatedTurn, figures

OVERLAPPED, SHARED, ORIGINAL = "overlapped", "one call at a time", "original"
OURS = (OVERLAPPED, SHARED)  # the extremes between which streams of one device slow each other
SCHEDULES = (*OURS, ORIGINAL)
CONTINUOUS = 0.99  # share of turns without an audible gap that a device is to keep
LOADS = 4  # of a number of sessions, for a share of turns that is more than one turn's luck


def server_of(schedule: str, model: SimulatedModel, limits: DeviceLimits) -> SimulatedServer:
    """A fresh device that runs a model in one of `SCHEDULES`; the original at the paper's 7B times on its L40."""
    if schedule == ORIGINAL:
        return SerialServer(fit.of_table(table6()), model)
    return OverlappedServer(model, limits, width=1 if schedule == SHARED else None)


def first_chunk(schedule: str, model: SimulatedModel, limits: DeviceLimits) -> tuple[float, list[CallSpan]]:
    """Seconds from a question to the first sound without other sessions, and the calls that it waits for."""
    # two rounds of text, so that the first chunk is no answer's last
    answer = AnswerLength(2 * model.read, 4 * model.hop)
    server, turn = server_of(schedule, model, limits), SimulatedTurn(0, 0.0)
    server.ask(turn, answer, lambda: None)
    server.simulation.run()
    ends = {span.stop: span for span in server.spans()}  # what ends as another begins is what that waits for
    chain, time = list[CallSpan](), turn.ready[0]
    while time > turn.asked:
        chain.append(ends[time])
        time = ends[time].start
    return turn.first_chunk, chain[::-1]


def serve(model: SimulatedModel, count: int, schedule: str, limits: DeviceLimits, seed: int) -> list[SimulatedTurn]:
    """The turns of a number of sessions."""
    return converse(server_of(schedule, model, limits), talks(count, seed))


def memory(model: SimulatedModel, turns: Sequence[SimulatedTurn], answers: Iterable[AnswerLength]) -> float:
    """Bytes that turns took: weights, what sessions keep, and the flow's caches of as many turns as were answered at
    once, each as if it had the longest of the answers."""
    longest = max(answers, key=lambda answer: answer.units)
    return model.memory(len({turn.session for turn in turns}), at_once(turns), longest)


def at_once(turns: Sequence[SimulatedTurn]) -> int:
    """Turns that were asked and had not all of their sound yet, at most."""
    return max(sum(other.asked <= turn.asked < other.ready[-1] for other in turns) for turn in turns)


def kept(model: SimulatedModel, count: int, schedule: str, limits: DeviceLimits, seed: int) -> float:
    """Share of turns without an audible gap, over `LOADS` loads of this number of sessions."""
    loads = [figures(serve(model, count, schedule, limits, seed + load)) for load in range(LOADS)]
    return float(np.mean([found.continuity for found in loads]))


def needed(model: SimulatedModel, count: int, schedule: str, limits: DeviceLimits, seed: int) -> float:
    """Bytes for the greediest of `LOADS` loads of this number of sessions."""
    return max(
        memory(model, serve(model, count, schedule, limits, seed + load), answers_of(count, seed + load))
        for load in range(LOADS)
    )


def answers_of(count: int, seed: int) -> list[AnswerLength]:
    """All answers of a load."""
    return [answer for talk in talks(count, seed) for answer in talk.answers]


def capacity(model: SimulatedModel, schedule: str, limits: DeviceLimits, seed: int, most: int) -> dict[str, Any]:
    """How many sessions a device serves without a gap that is heard in `CONTINUOUS` of all turns.

    Returns:
        For JSON: sessions by time alone, at most `most`, and those for whom there is memory as well.
    """
    by_time = largest(most, lambda count: kept(model, count, schedule, limits, seed) >= CONTINUOUS)
    memory_of_all = limits.device.memory
    fitting = largest(by_time, lambda count: needed(model, count, schedule, limits, seed) <= memory_of_all)
    found = {"size": model.size, "precision": model.precision, "schedule": schedule, "most": most}
    return {**found, "by_time": by_time, "with_memory": fitting}


def largest(most: int, enough: Callable[[int], bool]) -> int:
    """The largest number up to `most` that is not too many: twice as many each time until they are, then halfway
    between. 0 if 1 is too many."""
    low, tried, high = 0, 1, most + 1
    while tried < high:
        low, high = (tried, high) if enough(tried) else (low, tried)
        tried = min(2 * low, most) if high > most > low else (low + high + 1) // 2
    return low


def cells(sizes: list[str], sessions: list[int], limits: DeviceLimits, seed: int) -> Iterator[dict[str, Any]]:
    """Every size, number of sessions and schedule, for JSON; times in seconds. The original has one size.

    Args:
        sizes: of `PRESETS`.
        sessions: numbers of sessions.
        limits: of the device.
        seed: of the load.
    """
    for size in sizes:
        model = SimulatedModel(size)
        for count in sessions:
            for schedule in SCHEDULES if size == fit.SIZE else OURS:
                turns = serve(model, count, schedule, limits, seed)
                taken = memory(model, turns, answers_of(count, seed))
                yield {
                    "size": size,
                    "sessions": count,
                    "schedule": schedule,
                    **asdict(figures(turns)),
                    "memory_bytes": taken,
                    "fits": taken <= limits.device.memory,
                }
