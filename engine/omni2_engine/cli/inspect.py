"""`omni2-engine inspect`: what is in an engine directory, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterable
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from omni2_engine.model.manifest import EngineDirectory

STORAGE_NAMES = {"flow_step": "flow"}  # stage → what the manifest calls its precision, where that differs


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command()
    def inspect(
        engine: Annotated[Path, typer.Argument(help="engine directory")],
        check: Annotated[bool, typer.Option("--check", help="compare every file with its hash")] = False,
        json: Annotated[bool, typer.Option("--json", help="print the manifest")] = False,
    ) -> None:
        """Show what an engine is made of."""
        directory = EngineDirectory(engine)
        manifest = directory.manifest
        if json:
            typer.echo(dumps(manifest.model_dump(mode="json"), indent=1))  # ASCII, which every encoding has
        else:
            _show(directory)
        if check:
            directory.check()
            typer.echo(f"{len(manifest.files)} files are what the manifest says", err=json)


def _show(directory: EngineDirectory) -> None:
    manifest, model = directory.manifest, directory.manifest.model
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    targets = ", ".join(manifest.targets)
    console.print(f"{model.name}: R={model.read}, W={model.write}, preset {manifest.preset}, target {targets}")
    console.print(f"voices: {', '.join(directory.voices())} (default {manifest.default_voice})")
    console.print(
        f"window {model.encoder.samples / 16_000:g} s → {model.encoder.positions} positions; "
        f"context up to {manifest.longest_context}; {model.vocoder.sample_rate} Hz out"
    )
    if manifest.plans:
        libraries = dict.fromkeys(f"{plan.flavour} {plan.version}" for plan in manifest.plans)
        console.print(f"plans for {', '.join(libraries)}")
    plans = {plan.file: plan.precision for plan in manifest.plans}
    table = Table("stage", "storage", "size")
    for stage, entry in manifest.stages.items():
        size = sum(manifest.files[name].size for name in entry.files)
        storage = manifest.precision.get(
            STORAGE_NAMES.get(stage, stage), "fp32" if stage in _graph_stages(manifest.files) else ""
        )
        table.add_row(stage, plans.get(entry.files[0], storage), f"{size / 2**20:.1f} MiB")
    table.add_row("total", "", f"{sum(entry.size for entry in manifest.files.values()) / 2**20:.1f} MiB")
    console.print(table)
    console.print("built with " + ", ".join(f"{tool} {version}" for tool, version in manifest.tools.items()))


def _graph_stages(files: Iterable[str]) -> set[str]:
    return {Path(name).stem for name in files if name.startswith("graphs/")}
