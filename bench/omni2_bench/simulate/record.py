"""`bench simulate` from plan to record: first chunks and their band, the evidence, many sessions, the paper's table."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from omni2_bench.common.results import Say
from omni2_bench.simulate import evidence, fit, load, paper
from omni2_bench.simulate.device import BEST, H200, L40, WORST, DeviceLimits, ReachedShare, SimulatedDevice
from omni2_bench.simulate.load import AnswerLength, Talk, converse
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.original import SerialServer
from omni2_bench.simulate.overload import OVERLOAD, overload
from omni2_bench.simulate.sweep import OURS, OVERLAPPED, SHARED, capacity, cells, first_chunk
from omni2_bench.simulate.trace import MODEL, CallSpan
from omni2_bench.simulate.turns import SimulatedTurn
from omni2_engine.errors import SettingError
from omni2_export.checkpoint_writer.dimensions import PRESETS

SCHEMA_VERSION = 3
GOAL = 0.12  # seconds to the first chunk that the engine is built for
TYPICAL = AnswerLength(45, 300)  # of the paper's turn and of the time lines: twelve seconds
TARGETS = (
    (L40, "tensorrt", "balanced", False),
    (L40, "tensorrt", "fast", False),
    (L40, "tensorrt", "fp8", False),
    (L40, "tensorrt", "mixed", False),
    (L40, "tensorrt", "fp8", True),
    (L40, "tensorrt", "mixed", True),
    (H200, "cuda", "balanced", False),
)
SERVING = ("balanced", "fp8", "mixed")  # precisions of which it is asked how many sessions a device serves
# A device on which one second is one kernel.
COUNTER = DeviceLimits(SimulatedDevice("counts kernels", math.inf, math.inf, 0), ReachedShare(1, 1, 1.0))


@dataclass(frozen=True)
class SimulationPlan:
    """What is simulated.

    Args:
        share: what is reached of the devices.
        sizes: of the released models.
        sessions: numbers of sessions.
        seed: of the load.
        most: sessions that are tried where it is asked how many are too many.

    Raises:
        SettingError: a size that does not exist, or no session.
    """

    share: ReachedShare
    sizes: list[str]
    sessions: list[int]
    seed: int
    most: int = 16

    def __post_init__(self) -> None:
        known = [size for size in PRESETS if any(row.size == size for row in paper.table6())]
        for size in self.sizes:
            if size not in known:
                raise SettingError(f"the paper has no size {size!r}", f"use some of {', '.join(known)}")
        if not self.sizes or not self.sessions or min(self.sessions) < 1:
            raise SettingError("there is nothing to simulate", "name at least one size and one session")

    @property
    def limits(self) -> DeviceLimits:
        """Of the device that many sessions are tried on."""
        return DeviceLimits(L40, self.share)

    @property
    def shown(self) -> str:
        """The size of the time line: the one the paper's schedules are of, or the first."""
        return fit.SIZE if fit.SIZE in self.sizes else self.sizes[0]


def simulate(plan: SimulationPlan, say: Say) -> dict[str, Any]:
    """Compute everything, for JSON.

    Args:
        plan: what to simulate.
        say: told what happens.
    """
    limits = plan.limits
    say(f"{limits.device.name}: {MODEL}")
    found: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "note": MODEL,
        "devices": [asdict(device) for device in (L40, H200)],
        "shares": {"likely": asdict(plan.share), "best": asdict(BEST), "worst": asdict(WORST)},
        "load": {
            "seed": plan.seed,
            "arrivals_s": load.ARRIVALS,
            "turns": load.TURNS,
            "text_tokens": load.TEXT_TOKENS,
            "units_per_token": load.UNITS_PER_TOKEN,
            "question_s": load.QUESTION,
        },
        "evidence": evidence.record(evidence.measurements()),
        "paper": {**fit.record(paper.table6()), "turn": _paper_turn()},
        "goal_ms": 1e3 * GOAL,
        "first_chunk": [
            _first_chunk(SimulatedModel(size, runtime, precision, tail), device, plan.share)
            for device, runtime, precision, tail in TARGETS
            for size in plan.sizes
        ],
        "sessions": [],
    }
    for cell in cells(plan.sizes, plan.sessions, limits, plan.seed):
        say(
            f"{cell['size']}, {cell['sessions']} sessions, {cell['schedule']}: first chunk "
            f"{1e3 * cell['first_chunk']:.0f} ms, continuity {100 * cell['continuity']:.0f} %"
        )
        found["sessions"].append(cell)
    say("how many sessions are too many …")
    found["capacity"] = [
        capacity(SimulatedModel(size, precision=precision), schedule, limits, plan.seed, plan.most)
        for precision in SERVING
        for size in plan.sizes
        for schedule in OURS
    ]
    most = next(row["by_time"] for row in found["capacity"] if (row["size"], row["schedule"]) == (plan.shown, SHARED))
    found["overload"] = overload(SimulatedModel(plan.shown), limits, OVERLOAD * max(most, 1), plan.seed)
    return found


def paper_server() -> SerialServer:
    """The original as the paper's table has it, at its default schedule."""
    return SerialServer(fit.of_table(paper.table6()), SimulatedModel(fit.SIZE))


def alone(answer: AnswerLength = TYPICAL) -> Sequence[Talk]:
    """One session with one question."""
    return [Talk(0.0, (), (answer,))]


def _paper_turn() -> dict[str, float]:
    """What the fitted constants say beyond the first chunk: how long the gap behind it is."""
    (turn,) = converse(paper_server(), alone())
    return {
        "first_chunk_ms": 1e3 * turn.first_chunk,
        "first_sound_ms": 1e3 * turn.durations[0],
        "first_gap_ms": 1e3 * first_gap(turn),
    }


def first_gap(turn: SimulatedTurn) -> float:
    """Seconds for which a player has nothing to play after its first chunk; 0 if the second is there in time."""
    return max(0.0, turn.ready[1] - turn.ready[0] - turn.durations[0])


def _first_chunk(model: SimulatedModel, device: SimulatedDevice, share: ReachedShare) -> dict[str, Any]:
    """One model on one device: the first chunk with its band, and what every stage has in it."""
    row = paper.of(paper.table6(), model.size, model.read, model.write)
    seconds, spans = first_chunk(OVERLAPPED, model, DeviceLimits(device, share))
    times, kernels = _by_stage(spans), _by_stage(first_chunk(OVERLAPPED, model, COUNTER)[1])
    return {
        "size": model.size,
        "device": device.name,
        "runtime": model.runtime,
        "precision": model.precision,
        "encoder": "tail" if model.tail else "window",
        "paper_ms": 1e3 * row.total if device == L40 else None,
        "ours_ms": 1e3 * seconds,
        "best_ms": 1e3 * first_chunk(OVERLAPPED, model, DeviceLimits(device, BEST))[0],
        "worst_ms": 1e3 * first_chunk(OVERLAPPED, model, DeviceLimits(device, WORST))[0],
        "one_call_at_a_time_ms": 1e3 * first_chunk(SHARED, model, DeviceLimits(device, share))[0],
        "stages_ms": {stage: 1e3 * time for stage, time in times.items()},
        "kernels": {stage: round(count) for stage, count in kernels.items()},
    }


def _by_stage(spans: Sequence[CallSpan]) -> dict[str, float]:
    """Seconds of every stage's calls."""
    total: defaultdict[str, float] = defaultdict(float)
    for span in spans:
        total[span.stage] += span.stop - span.start
    return dict(total)
