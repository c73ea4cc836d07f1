"""Runs trials and writes what they found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from omni2_bench.common.results import Say, write_results
from omni2_bench.load.caller import Server
from omni2_bench.load.objectives import Objective, highest_rate
from omni2_bench.load.page import page
from omni2_bench.load.plots import draw
from omni2_bench.load.recordings import read_recording
from omni2_bench.load.trial import Trial, meet
from omni2_bench.load.visits import Behaviour
from omni2_engine.errors import SettingError


@dataclass(frozen=True)
class LoadPlan:
    """What to try.

    Args:
        server: to call.
        behaviour: of the callers; its rate is the first that is tried.
        rates: all rates to try; none where objectives are searched for.
        objectives: bounds whose highest rate is searched.
        questions: recordings.
    """

    server: Server
    behaviour: Behaviour
    rates: Sequence[float]
    objectives: Sequence[Objective]
    questions: Sequence[Path]


def run(plan: LoadPlan, out: Path, say: Say) -> str:
    """Make all trials and write `serve.json`, `serve.md` and `serve.png`.

    Returns:
        The page.

    Raises:
        SettingError: no caller got any answer.
    """
    recordings = [read_recording(path) for path in plan.questions]
    trials: list[Trial] = []

    def trial(rate: float) -> dict[str, float]:
        behaviour = replace(plan.behaviour, rate=rate)
        trials.append(Trial(behaviour, asyncio.run(meet(plan.server, behaviour, recordings))))
        figures = trials[-1].figures()
        line = f"{rate:.3g} conversations/s: first sound p95 {figures.get('first_sound_p95', float('nan')):.2f} s"
        say(f"{line}, continuity {figures.get('continuity', float('nan')):.1%}, refused {figures['refused']:.0%}")
        return figures

    def kept(rate: float) -> bool:
        figures = trial(rate)
        return all(objective.met(figures) for objective in plan.objectives)

    capacity: float | None = None
    if plan.objectives:
        capacity = highest_rate(kept, plan.behaviour.rate)
    else:
        for rate in plan.rates:
            trial(rate)
    if not any(turn.ready for trial in trials for turn in trial.turns):
        problems = {call.problem for trial in trials for call in trial.calls if call.problem}
        raise SettingError(
            f"no caller got an answer from {plan.server.url}: {'; '.join(sorted(problems)) or 'no sound came'}",
            "check the address and the key, and that the server answers a single conversation",
        )
    record = {
        "server": plan.server.url,
        "silence": plan.server.silence,
        "behaviour": asdict(plan.behaviour),
        "objectives": [str(objective) for objective in plan.objectives],
        "capacity": capacity,
        "trials": [found.record() for found in trials],
    }
    written = write_results(out, "serve", record, page(record))
    draw(trials, out / "serve.png")
    return written
