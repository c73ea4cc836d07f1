"""`bench simulate` from plan to files: `simulate.json`, `simulate.md`, the plots and the trace."""

from __future__ import annotations

from pathlib import Path

from omni2_bench.common.results import Say, write_results
from omni2_bench.simulate.load import converse, talks
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.page import page
from omni2_bench.simulate.record import SimulationPlan, alone, paper_server, simulate
from omni2_bench.simulate.sweep import OVERLAPPED, server_of
from omni2_bench.simulate.timeline import DrawnSchedule, draw_timeline
from omni2_bench.simulate.trace import write_trace

SHOWN = 4  # sessions of the time line and the trace
SECONDS = 6.0  # of the time line


def run(plan: SimulationPlan, out: Path, say: Say) -> str:
    """Simulate and report.

    Args:
        plan: what to simulate.
        out: directory for everything.
        say: told what happens.

    Returns:
        The page to read.
    """
    record = simulate(plan, say)
    text = write_results(out, "simulate", record, page(record))
    _show_schedules(plan, out)
    for path in ("timeline.png", "trace.json"):
        say(f"wrote {out / path}")
    return text


def _show_schedules(plan: SimulationPlan, out: Path) -> None:
    """The time line of the original and of ours, and the trace of several sessions."""
    model = SimulatedModel(plan.shown)
    schedules = {
        "The original in five constants fitted to the paper's table (7B)": (paper_server(), alone()),
        f"Ours ({plan.shown})": (server_of(OVERLAPPED, model, plan.limits), alone()),
        f"Ours ({plan.shown}), {SHOWN} sessions": (
            server_of(OVERLAPPED, model, plan.limits),
            talks(SHOWN, plan.seed),
        ),
    }
    lanes = []
    for title, (server, load) in schedules.items():
        turns = converse(server, load)
        first = [1e3 * turn.first_chunk for turn in turns if turn.asked < SECONDS]
        span = f"{min(first):.0f}" if len(first) == 1 else f"{min(first):.0f} to {max(first):.0f}"
        lanes.append(DrawnSchedule(f"{title}: first chunk {span} ms", server.spans(), turns))
    draw_timeline(out / "timeline.png", lanes, SECONDS)
    write_trace(out / "trace.json", lanes[-1].spans, lanes[-1].turns)
