"""`omni2-engine bench simulate`: what a data sheet's figures allow, against a virtual clock."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SIZES = "0.5B,1.5B,3B,7B,14B"
SESSIONS = "1,2,4,8,16,32"


def register(bench: typer.Typer) -> None:
    """Add the command to `omni2-engine bench`."""

    @bench.command()
    def simulate(
        out: Annotated[Path, typer.Option(help="directory for results")],
        sizes: Annotated[str, typer.Option(help="released sizes, separated by commas")] = SIZES,
        sessions: Annotated[str, typer.Option(help="numbers of sessions, separated by commas")] = SESSIONS,
        efficiency_memory: Annotated[float, typer.Option(help="share of the memory bandwidth that is reached")] = 0.86,
        efficiency_compute: Annotated[float, typer.Option(help="share of the arithmetic that is reached")] = 0.45,
        launch_us: Annotated[float, typer.Option(help="µs of every kernel that waits for another")] = 5.75,
        hop_us: Annotated[float, typer.Option(help="µs of the host for every call of a stage")] = 300.0,
        most: Annotated[int, typer.Option(min=1, help="sessions to try, when asked how many are too many")] = 16,
        seed: Annotated[int, typer.Option(min=0, help="names the load's random numbers")] = 0,
    ) -> None:
        """First chunks and many sessions on a data sheet's GPU, at shares fitted to published times: a model."""
        from omni2_engine.cli.require import require

        require("export", "onnx", "onnx_ir", "ml_dtypes", "yaml")
        require("bench", "greenlet", "matplotlib")
        from omni2_bench.simulate.device import ReachedShare
        from omni2_bench.simulate.record import SimulationPlan
        from omni2_bench.simulate.results import run

        share = ReachedShare(efficiency_memory, efficiency_compute, 1e-6 * launch_us, 1e-6 * hop_us)
        typer.echo(run(SimulationPlan(share, _parts(sizes), _numbers(sessions), seed, most), out, typer.echo))


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _numbers(text: str) -> list[int]:
    from omni2_engine.errors import SettingError

    try:
        return sorted({int(part) for part in _parts(text)})
    except ValueError:
        raise SettingError(f"{text!r} are no numbers of sessions", "give some like 1,8,32") from None
