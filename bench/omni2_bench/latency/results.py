"""`bench latency` from plan to files: rounds, `latency.json`, `latency.md` and the plots."""

from __future__ import annotations

import json
from pathlib import Path

from omni2_bench.common.models import BenchCheckpoint, size_of
from omni2_bench.common.results import Say, write_results
from omni2_bench.common.script import units_per_chunk
from omni2_bench.common.statistics import Blocks
from omni2_bench.latency.page import page
from omni2_bench.latency.plots import draw_all
from omni2_bench.latency.record import LatencyReport
from omni2_bench.latency.rounds import LatencyPlan, measure
from omni2_bench.simulate.paper import find_row, table6
from omni2_engine.errors import SettingError


def run(plan: LatencyPlan, model: BenchCheckpoint, cache: Path, out: Path, say: Say) -> str:
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
    report = LatencyReport(plan, measure(plan, model, cache, out, say), blocks, paper)
    machine, request = (json.loads((out / f"{name}.json").read_text("utf-8")) for name in ("machine", "request"))
    record = report.record(machine, request)
    text = write_results(out, "latency", record, page(record))
    for path in draw_all(report, out):
        say(f"wrote {path}")
    return text
