"""`bench simulate`, more to do than the device can: what the order of sessions is worth on the engine's own policy."""

from __future__ import annotations

import pytest

from omni2_bench.simulate.device import L40, LIKELY, DeviceLimits
from omni2_bench.simulate.load import AnswerLength, Talk, converse
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.ours import OverlappedServer
from omni2_bench.simulate.overload import overload
from omni2_bench.simulate.sweep import SHARED, first_chunk

LIMITS = DeviceLimits(L40, LIKELY)
MANY = 30  # sessions with the 0.5B model: some twice what the device can


@pytest.mark.parametrize("seed", [0, 1])
def test_deadlines_break_fewer_answers_than_first_come(seed: int) -> None:
    found = overload(SimulatedModel("0.5B"), LIMITS, MANY, seed)
    deadline, arrival = found["orders"]["deadline"], found["orders"]["arrival"]
    assert deadline["turns"] == arrival["turns"] == 3 * MANY
    for figure in ("first_chunk_p90", "underrun", "underrun_p90"):
        assert deadline[figure] < 0.85 * arrival[figure]


def test_nobody_starves() -> None:
    """Of many who ask at once, none waits for longer than the first chunks of all take."""
    model = SimulatedModel("0.5B")
    alone, _ = first_chunk(SHARED, model, LIMITS)
    turns = converse(OverlappedServer(model, LIMITS, width=1), [Talk(0.0, (), (AnswerLength.of(40),))] * MANY)
    assert max(turn.first_chunk for turn in turns) < MANY * alone + 1.0
    assert max(turn.gaps.worst for turn in turns) < MANY * alone + 1.0
