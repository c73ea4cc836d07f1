"""What the order of sessions is worth when there is more to do than the device can: one load, served in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np

from omni2_bench.common.statistics import AUDIBLE
from omni2_bench.simulate.device import DeviceLimits
from omni2_bench.simulate.load import AnswerLength, Talk, converse
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.ours import Order, OverlappedServer
from omni2_bench.simulate.turns import SimulatedTurn

LONG, SHORT = AnswerLength.of(200), AnswerLength.of(40)  # 52 and 10 s of speech
UNDER_WAY = 25.0  # seconds after the first question when the burst comes
BURST = 5.0  # seconds that it lasts
OVERLOAD = 2  # times what the device can
MOST = 64  # sessions that are tried


@dataclass(frozen=True)
class Silences:
    """What listeners had to bear.

    Attributes:
        turns: how many.
        underruns: gaps that a listener notices, of all turns.
        broken: turns with one at least.
        silence: seconds of all gaps together, heard or not.
        longest: seconds of the longest gap.
        first_chunk: seconds, the longest wait for one.
    """

    turns: int
    underruns: int
    broken: int
    silence: float
    longest: float
    first_chunk: float

    @classmethod
    def of(cls, turns: Sequence[SimulatedTurn]) -> Silences:
        """Of turns that all came to their end."""
        gaps = [[length for _, length in turn.starving] for turn in turns]
        audible = [sum(gap >= AUDIBLE for gap in own) for own in gaps]
        return cls(
            len(turns),
            sum(audible),
            sum(count > 0 for count in audible),
            sum(map(sum, gaps)),
            max((gap for own in gaps for gap in own), default=0.0),
            max(turn.first_chunk for turn in turns),
        )


def serve(model: SimulatedModel, limits: DeviceLimits, load: Sequence[Talk], order: Order) -> Silences:
    """Let a device that makes one call at a time answer a load."""
    return Silences.of(converse(_server(model, limits, order), load))


def _server(model: SimulatedModel, limits: DeviceLimits, order: Order) -> OverlappedServer:
    return OverlappedServer(model, limits, width=1, order=order)


def questions(count: int, answer: AnswerLength, begin: float, end: float, seed: int) -> list[Talk]:
    """So many sessions with one question each, asked at any time between two."""
    times = np.random.default_rng((seed, answer.tokens)).uniform(begin, end, count)
    return [Talk(float(time), (), (answer,)) for time in sorted(times)]


def capacity(model: SimulatedModel, limits: DeviceLimits, seed: int) -> int:
    """Long answers at once that a device makes as fast as they are heard (RTF 1, waiting included).

    Returns:
        At least 1, whatever that one is like, and at most `MOST`.
    """
    low, high = 1, MOST + 1
    while high - low > 1:
        middle = (low + high) // 2
        turns = converse(_server(model, limits, "deadline"), questions(middle, LONG, 0.0, UNDER_WAY, seed))
        low, high = (middle, high) if max(turn.rtf for turn in turns) <= 1 else (low, middle)
    return low


def overload(model: SimulatedModel, limits: DeviceLimits, seed: int) -> dict[str, Any]:
    """Twice the capacity, in both orders, for JSON; times in seconds.

    Args:
        model: that answers.
        limits: of the device.
        seed: of the load.
    """
    most = capacity(model, limits, seed)
    begun = questions(most, LONG, 0.0, UNDER_WAY, seed)
    loads = {
        "burst": begun + questions((OVERLOAD - 1) * most, SHORT, UNDER_WAY, UNDER_WAY + BURST, seed),
        "lasting": questions(OVERLOAD * most, LONG, 0.0, UNDER_WAY, seed),
    }
    return {
        "size": model.size,
        "capacity": most,
        "under_way_s": UNDER_WAY,
        "long_s": model.sound.out(LONG.units, True),
        "short_s": model.sound.out(SHORT.units, True),
        "loads": {
            name: {order: asdict(serve(model, limits, load, order)) for order in get_args(Order)}
            for name, load in loads.items()
        },
    }
