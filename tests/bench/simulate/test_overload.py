"""`bench simulate`, more to do than the device can: what the order of sessions is worth on the engine's own policy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from omni2_bench.simulate.device import L40, DeviceLimits
from omni2_bench.simulate.load import converse
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.ours import OverlappedServer
from omni2_bench.simulate.overload import LONG, MOST, UNDER_WAY, Silences, capacity, overload, questions
from omni2_bench.simulate.sweep import SHARED, first_chunk
from omni2_bench.simulate.turns import SimulatedTurn

LIMITS = DeviceLimits(L40, 0.7, 0.5, 2e-6)


@pytest.fixture(scope="module")
def served() -> Callable[[int], dict[str, Any]]:
    """Seed → the 7B model's overload."""
    return cache(lambda seed: overload(SimulatedModel("7B"), LIMITS, seed))


def test_silences() -> None:
    whole, broken = SimulatedTurn(0, 1.0), SimulatedTurn(1, 2.0)
    for turn, times in ((whole, (1.5, 1.9)), (broken, (2.2, 2.75, 3.35))):
        for time in times:
            turn.hear(time, 0.5)
    found = Silences.of([whole, broken])
    assert (found.turns, found.underruns, found.broken) == (2, 1, 1)  # 50 ms are not heard, 100 are
    assert (found.silence, found.longest) == (pytest.approx(0.15), pytest.approx(0.1))
    assert found.first_chunk == pytest.approx(0.5)


def test_capacity_is_what_keeps_pace_with_its_players() -> None:
    model = SimulatedModel("7B")
    most = capacity(model, LIMITS, seed=0)

    def slowest(sessions: int) -> float:
        load = questions(sessions, LONG, 0.0, UNDER_WAY, seed=0)
        return max(turn.rtf for turn in converse(OverlappedServer(model, LIMITS, width=1), load))

    assert 1 < most < MOST
    assert slowest(most) <= 1 < slowest(most + 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_deadlines_break_fewer_answers_than_first_come(served: Callable[[int], dict[str, Any]], seed: int) -> None:
    found = served(seed)
    for load, less in (("burst", 0.8), ("lasting", 0.85)):
        deadline, arrival = found["loads"][load]["deadline"], found["loads"][load]["arrival"]
        assert deadline["turns"] == arrival["turns"] == 2 * found["capacity"]
        assert deadline["underruns"] < less * arrival["underruns"]
        assert deadline["silence"] < less * arrival["silence"]
        assert deadline["first_chunk"] < 0.5 * arrival["first_chunk"]


@pytest.mark.parametrize("seed", [0, 1])
def test_nobody_starves(served: Callable[[int], dict[str, Any]], seed: int) -> None:
    """Nobody waits for longer than the first chunks take of all who come while they wait."""
    found = served(seed)
    alone = first_chunk(SHARED, SimulatedModel("7B"), LIMITS)
    for orders in found["loads"].values():
        assert orders["deadline"]["longest"] < found["capacity"] * alone + 1.0
        assert orders["deadline"]["first_chunk"] < found["capacity"] * alone + 1.0
