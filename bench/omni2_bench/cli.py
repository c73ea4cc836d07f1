"""`omni2-engine bench`: how fast and how good the engine is, on this machine or on a data sheet's."""

from __future__ import annotations

import typer

from omni2_bench.lab import kernels_command as kernels
from omni2_bench.latency import command as latency
from omni2_bench.limits import command as limits
from omni2_bench.live import command as live
from omni2_bench.load import command as load
from omni2_bench.quality import command as quality
from omni2_bench.simulate import command as simulate


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    bench = typer.Typer(help="Measure the engine.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(bench, name="bench")
    for benchmark in (latency, limits, simulate, kernels, quality, load, live):
        benchmark.register(bench)
