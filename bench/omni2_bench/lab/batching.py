"""`bench batching`: what it brings to serve several conversations in one call, stage by stage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni2_bench.common.machine import describe
from omni2_bench.common.models import Model, built_engine
from omni2_bench.common.process import run_worker
from omni2_bench.common.results import Say, table
from omni2_bench.common.statistics import as_record, summarise

SCHEMA_VERSION = 1
BOTH = "both"


@dataclass(frozen=True)
class BatchingPlan:
    """What is measured.

    Args:
        presets: of the engine.
        sizes: conversations in a call.
        context: positions each has where tokens are decoded.
        rounds: how often everything runs, in turns.
        voice: the engine is built with.
        threads: processor threads.
    """

    presets: tuple[str, ...]
    sizes: tuple[int, ...]
    context: int
    rounds: int
    voice: Path
    threads: int


def run(plan: BatchingPlan, model: Model, cache: Path, out: Path, say: Say) -> str:
    """Measure, write `batching.json` and `batching.md`.

    Args:
        plan: what to measure.
        model: the checkpoint.
        cache: where engines are kept.
        out: directory of the results.
        say: told what happens.

    Returns:
        The page to read.

    Raises:
        Omni2Error: a measurement failed.
    """
    found = {}
    for preset in plan.presets:
        engine = built_engine(model, preset, plan.voice, cache)
        say(f"decoding with {preset} …")
        request = {"engine": str(engine), "sizes": list(plan.sizes), "rounds": plan.rounds, "threads": plan.threads}
        times = run_worker("batching", {**request, "context": plan.context}, plan.threads)
        found[preset] = figures(_without_memory(times))
    out.mkdir(parents=True, exist_ok=True)
    record = {
        "schema_version": SCHEMA_VERSION,
        "model": model.name,
        "machine": describe(plan.threads),
        "context": plan.context,
        "rounds": plan.rounds,
        "presets": found,
    }
    (out / "batching.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    text = page(record)
    (out / "batching.md").write_text(text, encoding="utf-8")
    return text


Times = dict[str, dict[str, dict[str, list[float]]]]


def figures(times: Times) -> dict[str, Any]:
    """Medians and spread of seconds, and of how many times faster one call is than one call each, round by round.

    Args:
        times: of `omni2_bench.lab.decode_times.measure_batching`.

    Returns:
        model → size → figures; the model `both` is a step of every model, one after the other.
    """
    sizes = next(iter(times.values()))
    both = {
        size: {
            kind: [sum(round_) for round_ in zip(*(model[size][kind] for model in times.values()), strict=True)]
            for kind in ("together", "alone")
        }
        for size in sizes
    }
    return _gains({**times, BOTH: both})


def _without_memory(times: dict[str, Any]) -> Times:
    return {name: found for name, found in times.items() if name != "memory"}


def _gains(times: Times) -> dict[str, Any]:
    return {
        name: {
            size: {
                "together": as_record(summarise(found["together"])),
                "alone": as_record(summarise(found["alone"])),
                "gain": as_record(
                    summarise([alone / one for one, alone in zip(found["together"], found["alone"], strict=True)])
                ),
            }
            for size, found in model.items()
        }
        for name, model in times.items()
    }


def page(record: dict[str, Any]) -> str:
    """`batching.json` as a page to read."""
    machine = record["machine"]
    parts = [
        f"# Several conversations in one call, {record['model']}\n\n"
        f"{machine['processor']}, {machine['threads']} threads, {record['context']} positions each, "
        f"{record['rounds']} interleaved rounds, medians with p10 to p90.\n"
    ]
    header = ["", "conversations", "in one call", "one after the other", "gain"]
    for preset, models in record["presets"].items():
        rows = [
            [
                name.replace("_", " "),
                size,
                _milliseconds(found["together"]),
                _milliseconds(found["alone"]),
                f"×{found['gain']['median']:.2f} ({found['gain']['p10']:.2f} to {found['gain']['p90']:.2f})",
            ]
            for name, sizes in models.items()
            for size, found in sizes.items()
        ]
        parts.append(f"## {preset}\n\n" + table(header, rows))
    return "\n".join(parts)


def _milliseconds(figures: dict[str, float]) -> str:
    return f"{1e3 * figures['median']:.1f} ms ({1e3 * figures['p10']:.1f} to {1e3 * figures['p90']:.1f})"
