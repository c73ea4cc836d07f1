"""What the order of sessions is worth when there is more to do than the device can: one load, served in both orders."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args

from omni2_bench.simulate.device import DeviceLimits
from omni2_bench.simulate.load import converse, talks
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.ours import OverlappedServer
from omni2_bench.simulate.turns import figures
from omni2_engine.schedule.threaded import Order

OVERLOAD = 2  # times what the device can


def overload(model: SimulatedModel, limits: DeviceLimits, sessions: int, seed: int) -> dict[str, Any]:
    """Sessions that share one device, by deadlines and first come first served, for JSON; times in seconds."""
    load = talks(sessions, seed)
    served = {
        order: asdict(figures(converse(OverlappedServer(model, limits, width=1, order=order), load)))
        for order in get_args(Order)
    }
    return {"size": model.size, "sessions": sessions, "orders": served}
