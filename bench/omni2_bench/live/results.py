"""Measures and writes what was found."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omni2_bench.common import machine
from omni2_bench.common.results import Say, write_results
from omni2_bench.common.server_process import ServerProcess
from omni2_bench.live.conditions import LiveCondition, conditions
from omni2_bench.live.page import page
from omni2_bench.live.plots import draw
from omni2_bench.live.served import first_sounds, served
from omni2_bench.load.caller import Caller, Server
from omni2_bench.load.clock import Clock
from omni2_bench.load.recordings import RecordedQuestion, read_recording
from omni2_bench.load.records import Call
from omni2_bench.load.trial import Trial
from omni2_bench.load.visits import Behaviour, Visit


@dataclass(frozen=True)
class LivePlan:
    """What to measure; see the command."""

    engine: Path
    questions: list[Path]
    silences: list[float]
    conversations: list[int]
    turns: int
    rounds: int
    threads: int | None
    seed: int


@dataclass
class MeasuredCondition:
    """A condition and what came of it.

    Attributes:
        calls: what its callers saw.
        sounds: first sounds that the server counts itself, and their seconds from the decision on, all together.
    """

    condition: LiveCondition
    calls: list[Call]
    sounds: tuple[float, int] = (0.0, 0)

    def add(self, calls: list[Call], seconds: float, sounds: int) -> None:
        """Another round."""
        self.calls += calls
        self.sounds = self.sounds[0] + seconds, self.sounds[1] + sounds

    def record(self) -> dict[str, Any]:
        """For JSON."""
        trial = Trial(Behaviour(1.0, 1.0), self.calls)
        figures = trial.figures()
        seconds, sounds = self.sounds
        seen = [turn.ready[0] - turn.decided for turn in trial.turns if turn.ready and turn.decided is not None]
        if seen and sounds:
            figures["server_mean"] = seconds / sounds
            figures["socket_mean"] = sum(seen) / len(seen) - seconds / sounds
        return {**asdict(self.condition), "turns": len(trial.turns), "figures": figures, **problems(trial)}


def problems(trial: Trial) -> dict[str, Any]:
    """What went wrong, if anything did."""
    said = sorted({call.problem for call in trial.calls if call.problem})
    return {"problems": said} if said else {}


def run(plan: LivePlan, out: Path, say: Say) -> str:
    """Measure, and write `live.json`, `live.md` and `live.png`.

    Both servers, with speculation and without, run all the time, so that conditions alternate between them.

    Returns:
        The page.
    """
    recordings = [read_recording(path) for path in plan.questions]
    found = [MeasuredCondition(condition, []) for condition in conditions(plan.silences, plan.conversations)]
    sessions = max(plan.conversations)
    with ExitStack() as stack:
        servers = {
            speculate: stack.enter_context(served(plan.engine, sessions, speculate, plan.threads))
            for speculate in sorted({measured.condition.speculate for measured in found})
        }
        for server in servers.values():  # unmeasured: what is slower the first time
            _talk(server, LiveCondition(plan.silences[-1]).visits(2, len(recordings), plan.seed), 0.5, recordings)
        for number in range(plan.rounds):
            for measured in found:
                condition, seed = measured.condition, plan.seed + number
                server = servers[condition.speculate]
                before = first_sounds(server)
                calls = _talk(
                    server, condition.visits(plan.turns, len(recordings), seed), condition.silence, recordings
                )
                after = first_sounds(server)
                measured.add(calls, after[0] - before[0], after[1] - before[1])
                say(_line(number, measured))
    record: dict[str, Any] = {
        "engine": str(plan.engine),
        "machine": machine.describe(plan.threads or 0),
        "load": machine.load(),
        "turns": plan.turns,
        "rounds": plan.rounds,
        "questions": len(recordings),
        "seed": plan.seed,
        "conditions": [measured.record() for measured in found],
    }
    written = write_results(out, "live", record, page(record))
    draw(record["conditions"], out / "live.png")
    return written


def _talk(
    process: ServerProcess, visits: list[Visit], silence: float, recordings: list[RecordedQuestion]
) -> list[Call]:
    server = Server(process.url, silence=silence)

    async def meet() -> list[Call]:
        clock = Clock()
        callers = [Caller(server, visit, recordings, clock) for visit in visits]
        return list(await asyncio.gather(*(caller.call() for caller in callers)))

    return asyncio.run(meet())


def _line(number: int, measured: MeasuredCondition) -> str:
    figures, condition = measured.record()["figures"], measured.condition
    first = 1000 * figures.get("first_sound_p50", float("nan"))
    way = "with" if condition.speculate else "without"
    return (
        f"round {number + 1}: silence {condition.silence:g} s, {way} speculation, {condition.conversations} at once"
        f"{', interrupted' if condition.interrupts else ''}: first sound {first:.0f} ms"
    )
