"""`bench simulate` from plan to record: the paper's own figures, the first chunk of every size, and many sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from omni2_bench.common.results import Say
from omni2_bench.simulate import fit, load, paper
from omni2_bench.simulate.device import DeviceLimits, SimulatedDevice
from omni2_bench.simulate.load import AnswerLength, Talk, converse
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.original import FittedTimes, LimitTimes, SerialServer
from omni2_bench.simulate.overload import overload
from omni2_bench.simulate.sweep import ORIGINAL, OVERLAPPED, SHARED, cells, efficiency_for, first_chunk
from omni2_bench.simulate.trace import MODEL
from omni2_bench.simulate.turns import SimulatedTurn
from omni2_engine.errors import SettingError
from omni2_export.checkpoint_writer.dimensions import PRESETS

SCHEMA_VERSION = 1
GOAL = 0.12  # seconds to the first chunk that the engine is built for
TYPICAL = AnswerLength(45, 300)  # of the paper's turn and of the time lines: twelve seconds


@dataclass(frozen=True)
class SimulationPlan:
    """What is simulated.

    Args:
        limits: the device and what is reached of it.
        sizes: of the released models.
        sessions: numbers of sessions.
        seed: of the load.

    Raises:
        SettingError: a size that does not exist, or no session.
    """

    limits: DeviceLimits
    sizes: list[str]
    sessions: list[int]
    seed: int

    def __post_init__(self) -> None:
        known = [size for size in PRESETS if any(row.size == size for row in paper.table6())]
        for size in self.sizes:
            if size not in known:
                raise SettingError(f"the paper has no size {size!r}", f"use some of {', '.join(known)}")
        if not self.sizes or not self.sessions or min(self.sessions) < 1:
            raise SettingError("there is nothing to simulate", "name at least one size and one session")

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
        "device": asdict(limits.device),
        "efficiency": {"memory": limits.memory, "compute": limits.compute},
        "launch_us": 1e6 * limits.launch,
        "load": {
            "seed": plan.seed,
            "arrivals_s": load.ARRIVALS,
            "turns": load.TURNS,
            "text_tokens": load.TEXT_TOKENS,
            "units_per_token": load.UNITS_PER_TOKEN,
            "question_s": load.QUESTION,
        },
        "paper": {**fit.record(paper.table6()), "turn": _paper_turn(), "reached": _reached(limits.device)},
        "goal_ms": 1e3 * GOAL,
        "first_chunk": [],
        "sessions": [],
    }
    for size in plan.sizes:
        say(f"first chunk of {size} …")
        found["first_chunk"].append(_first_chunk(SimulatedModel(size), limits))
    for cell in cells(plan.sizes, plan.sessions, limits, plan.seed):
        say(
            f"{cell['size']}, {cell['sessions']} sessions, {cell['schedule']}: first chunk "
            f"{1e3 * cell['first_chunk']:.0f} ms, continuity {100 * cell['continuity']:.0f} %"
        )
        found["sessions"].append(cell)
    say(f"{plan.shown}, twice what the device can do …")
    found["overload"] = overload(SimulatedModel(plan.shown), limits, plan.seed)
    return found


def paper_constants() -> fit.Constants:
    """The original as the paper's table has it."""
    rows = paper.table6()
    return fit.fit([paper.of(rows, fit.SIZE, read, write) for read, write in fit.FITTED])


def paper_server() -> SerialServer:
    """The original as the paper's table has it, at its default schedule."""
    return SerialServer(FittedTimes(paper_constants()), SimulatedModel(fit.SIZE))


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


def _reached(device: SimulatedDevice) -> list[dict[str, Any]]:
    """How much of the device's limits the original reaches, by the constants of the fit: what efficiencies to expect of
    kernels that nobody has written for the purpose."""
    model, constants = SimulatedModel(fit.SIZE), paper_constants()
    ideal = LimitTimes(model, DeviceLimits(device, 1.0, 1.0, 0.0))
    steps = {
        "encoder and prefill": (constants.llm(1), ideal.prompt()),
        "text token": (constants.text_token, ideal.text_token(1)),
        "speech unit": (constants.unit, ideal.write(1, 1, 2) - ideal.write(1, 1, 1)),
        "flow and vocoder": (constants.synthesis, ideal.synthesis(model.hop, 0, False)),
    }
    return [
        {"step": name, "ms": 1e3 * seconds, "limit_ms": 1e3 * least, "share": least / seconds}
        for name, (seconds, least) in steps.items()
    ]


def first_gap(turn: SimulatedTurn) -> float:
    """Seconds for which a player has nothing to play after its first chunk; 0 if the second is there in time."""
    return max(0.0, turn.ready[1] - turn.ready[0] - turn.durations[0])


def _first_chunk(model: SimulatedModel, limits: DeviceLimits) -> dict[str, Any]:
    """One size: at the stated efficiencies, beside the paper, and how much of the device the goals ask for."""
    row = paper.of(paper.table6(), model.size, model.read, model.write)

    def at(share: float) -> float:
        return first_chunk(OVERLAPPED, model, limits.at(share))

    seconds = first_chunk(OVERLAPPED, model, limits)
    return {
        "size": model.size,
        "paper_ms": 1e3 * row.total,
        "ours_ms": 1e3 * seconds,
        "one_call_at_a_time_ms": 1e3 * first_chunk(SHARED, model, limits),
        "original_at_limits_ms": 1e3 * first_chunk(ORIGINAL, model, limits),
        "times_faster_than_paper": row.total / seconds,
        "ours_at_all_of_the_limits_ms": 1e3 * at(1.0),
        "efficiency_that_equals_paper": efficiency_for(row.total, at),
        "efficiency_for_goal": efficiency_for(GOAL, at),
    }
