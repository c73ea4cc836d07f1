"""`omni2-engine verify`: an engine against golden arrays of the original."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command()
    def verify(
        engine: Annotated[Path, typer.Argument(help="engine directory")],
        goldens: Annotated[Path, typer.Option(help="directory of golden arrays (.npz)")],
        json: Annotated[Path | None, typer.Option(help="also write the table as JSON to this file")] = None,
        threads: Annotated[int | None, typer.Option(help="processor threads")] = None,
    ) -> None:
        """Compare every stage with golden arrays; exit 1 on a miss or when nothing was compared."""
        from omni2_engine.cli.require import require

        require("export", "onnx")
        from rich.console import Console
        from rich.text import Text

        from omni2_engine.engine import Engine
        from omni2_export.verify import ALL_CONTEXT, print_report, verify_engine, write_json

        loaded = Engine.load(engine, threads=threads, left_context=ALL_CONTEXT, warm_up=False)
        with Console(stderr=True).status("reading goldens") as status:
            report = verify_engine(loaded, goldens, threads, lambda name: status.update(Text(f"comparing {name}")))
        print_report(report, f"{loaded.config.name}, preset {loaded.directory.manifest.preset}")
        if json is not None:
            write_json(report, json)
        raise typer.Exit(0 if report.passed else 1)
