"""`omni2-engine calibrate`: what float8 plans must know of the numbers their layers read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command()
    def calibrate(
        engine: Annotated[Path, typer.Argument(help="engine directory of the same checkpoint, --precision exact")],
        recordings: Annotated[list[Path], typer.Argument(help="spoken questions of the kind the model is for")],
        output: Annotated[Path, typer.Option("--output", "-o", help="file to write, for `build --ranges`")],
        threads: Annotated[int | None, typer.Option(min=1, help="processor threads")] = None,
    ) -> None:
        """Answer recordings in float32 and note the range of what every layer reads, for --precision …=fp8."""
        from omni2_engine.cli.require import require

        require("export", "onnx")
        from omni2_export.calibration import calibrate, write_ranges

        ranges = calibrate(engine, recordings, threads)
        write_ranges(output, ranges)
        typer.echo(f"{output}: {sum(map(len, ranges.values()))} layers, {len(recordings)} recordings")
