"""`omni2-engine convert`: a `.pt` file as `.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command("convert")
    def convert_command(
        file: Annotated[Path, typer.Argument(help="Whisper, flow or vocoder weights (.pt).", metavar="FILE.pt")],
        output: Annotated[
            Path | None, typer.Option("-o", "--output", help="The file to write; FILE.safetensors by default.")
        ] = None,
    ) -> None:
        """Write the tensors of a .pt file as .safetensors, which later builds read without PyTorch."""
        from omni2_export.checkpoint.convert import convert

        typer.echo(f"wrote {convert(file, output)}")
