"""`bench simulate` from plan to files: `simulate.json`, `simulate.md`, the plots and the trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omni2_bench.common.results import Say, write_results
from omni2_bench.simulate.load import converse, talks
from omni2_bench.simulate.model import Model
from omni2_bench.simulate.page import page
from omni2_bench.simulate.plots import Lanes, draw_efficiency, draw_sessions, draw_timeline
from omni2_bench.simulate.record import GOAL, Plan, alone, paper_server, simulate
from omni2_bench.simulate.sweep import ORIGINAL, OVERLAPPED, server_of
from omni2_bench.simulate.trace import write_trace

SHOWN = 4  # sessions of the time line and the trace
SECONDS = 6.0  # of the time line


def run(plan: Plan, out: Path, say: Say) -> str:
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
    draw_efficiency(out / "efficiency.png", record["curves"], _goals(record, plan.shown))
    draw_sessions(out / "sessions.png", record["sessions"])
    _show_schedules(plan, out)
    for path in ("efficiency.png", "sessions.png", "timeline.png", "trace.json"):
        say(f"wrote {out / path}")
    return text


def _goals(record: dict[str, Any], size: str) -> dict[str, float]:
    paper = next(row["paper_ms"] for row in record["first_chunk"] if row["size"] == size)
    return {f"the paper's {size}: {paper:.0f} ms": paper, f"goal: {1e3 * GOAL:.0f} ms": 1e3 * GOAL}


def _show_schedules(plan: Plan, out: Path) -> None:
    """The time line of the original and of ours, and the trace of several sessions."""
    model = Model(plan.shown)
    schedules = {
        "The original in five constants fitted to the paper's table (7B)": (paper_server(), alone()),
        f"The original's steps at the same efficiencies as ours ({plan.shown})": (
            server_of(ORIGINAL, model, plan.limits),
            alone(),
        ),
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
        lanes.append(Lanes(f"{title}: first chunk {span} ms", server.spans(), turns))
    draw_timeline(out / "timeline.png", lanes, SECONDS)
    write_trace(out / "trace.json", lanes[-1].spans, lanes[-1].turns)
