"""`bench latency` from plan to files: rounds, `latency.json`, `latency.md` and the plots."""

from __future__ import annotations

import json
from pathlib import Path

from omni2_bench.figures import draw_all
from omni2_bench.latency import Plan, Say, measure
from omni2_bench.markdown import page
from omni2_bench.models import Model, size_of
from omni2_bench.report import Report
from omni2_bench.script import units_per_chunk
from omni2_bench.simulate.paper import find_row, table6
from omni2_bench.statistics import Blocks
from omni2_engine.errors import SettingError


def run(plan: Plan, model: Model, cache: Path, out: Path, say: Say) -> str:
    """Measure and report.

    Args:
        plan: what to compare.
        model: the checkpoint.
        cache: where engines are kept.
        out: directory for everything.
        say: told what happens.

    Returns:
        The page to read.

    Raises:
        SettingError: too few chunks to tell growth, or `out` holds another benchmark.
        Omni2Error: a run failed.
    """
    config = model.open().config
    blocks = Blocks(units_per_chunk(config), config.flow_encoder.block_units)
    if plan.chunks < blocks.fewest_chunks():
        raise SettingError(f"{plan.chunks} chunks are too few to tell growth", f"use {blocks.fewest_chunks()} or more")
    paper = find_row(table6(), size_of(config), config.read, config.write)
    report = Report(plan, measure(plan, model, cache, out, say), blocks, paper)
    machine, request = (json.loads((out / f"{name}.json").read_text("utf-8")) for name in ("machine", "request"))
    record = report.record(machine, request)
    (out / "latency.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    text = page(record)
    (out / "latency.md").write_text(text, encoding="utf-8")
    for path in draw_all(report, out):
        say(f"wrote {path}")
    return text
