"""`bench overlap`: what it brings that a turn's stages run at the same time, on this machine, for one conversation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omni2_bench.common.machine import describe
from omni2_bench.common.models import Model, built_engine
from omni2_bench.common.process import run_worker
from omni2_bench.common.results import Say, table
from omni2_bench.common.statistics import Summary, as_record, summarise
from omni2_bench.latency.turn import TurnRequest, TurnResult

SCHEMA_VERSION = 1
WIDTHS = {"serial": 1, "overlapping": None}  # calls at once; None is the engine's own


@dataclass(frozen=True)
class OverlapPlan:
    """What is measured.

    Args:
        presets: of the engine.
        audio: the spoken question.
        voice: a recording of the voice to answer in.
        rounds: how often everything runs, in turns.
        threads: processor threads.
        chunks: of the answer.
    """

    presets: tuple[str, ...]
    audio: Path
    voice: Path
    rounds: int
    threads: int
    chunks: int


def run(plan: OverlapPlan, model: Model, cache: Path, out: Path, say: Say) -> str:
    """Measure, write `overlap.json` and `overlap.md`.

    Args:
        plan: what to measure.
        model: the checkpoint.
        cache: where engines are kept.
        out: directory of the results.
        say: told what happens.

    Returns:
        The page to read.

    Raises:
        Omni2Error: a turn failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    presets = {}
    for preset in plan.presets:
        engine = built_engine(model, preset, plan.voice, cache)
        results: dict[str, list[TurnResult]] = {name: [] for name in WIDTHS}
        for number in range(plan.rounds):
            for name in list(WIDTHS)[:: 1 if number % 2 == 0 else -1]:
                results[name].append(_turn(plan, engine, WIDTHS[name], out / f"{preset}-{name}.npy"))
                last = results[name][-1]
                say(f"{preset}, round {number + 1}, {name}: {last.ready[0]:.2f} s, in all {last.finished:.2f} s")
        presets[preset] = figures(results)
    record = {
        "schema_version": SCHEMA_VERSION,
        "model": model.name,
        "machine": describe(plan.threads),
        "rounds": plan.rounds,
        "chunks": plan.chunks,
        "presets": presets,
    }
    (out / "overlap.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    text = page(record)
    (out / "overlap.md").write_text(text, encoding="utf-8")
    return text


def figures(results: dict[str, list[TurnResult]]) -> dict[str, Any]:
    """Medians and spread of first chunk and answer, and of serial over overlapping, round by round."""
    moments: dict[str, Callable[[TurnResult], float]] = {
        "first_chunk": lambda result: result.ready[0],
        "answer": lambda result: result.finished,
    }
    found: dict[str, Any] = {}
    for moment, of in moments.items():
        seconds = {name: [of(result) for result in turns] for name, turns in results.items()}
        gains = [a / b for a, b in zip(seconds["serial"], seconds["overlapping"], strict=True)]
        found[moment] = {name: as_record(summarise(values)) for name, values in seconds.items()}
        found[moment]["gain"] = as_record(summarise(gains))
    return found


def page(record: dict[str, Any]) -> str:
    """`overlap.json` as a page to read."""
    machine = record["machine"]
    rows = [
        [preset, moment.replace("_", " "), _seconds(found["serial"]), _seconds(found["overlapping"]), _gain(found)]
        for preset, moments in record["presets"].items()
        for moment, found in moments.items()
    ]
    return (
        f"# One answer with its stages overlapping, {record['model']}\n\n"
        f"{machine['processor']}, {machine['threads']} threads, {record['chunks']} chunks, {record['rounds']} "
        "interleaved rounds, medians with p10 to p90.\n\n"
    ) + table(["", "", "one step at a time", "overlapping", "gain"], rows)


def _turn(plan: OverlapPlan, engine: Path, width: int | None, pcm: Path) -> TurnResult:
    request = TurnRequest(
        "engine", str(engine), str(plan.audio.resolve()), str(pcm.resolve()), plan.threads, plan.chunks, width=width
    )
    return TurnResult.from_json(run_worker("turn", asdict(request), plan.threads))


def _seconds(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} s ({found['p10']:.2f} to {found['p90']:.2f})"


def _gain(found: dict[str, dict[str, float]]) -> str:
    gain = Summary(**found["gain"])
    return f"×{gain.median:.2f} ({gain.p10:.2f} to {gain.p90:.2f})"
