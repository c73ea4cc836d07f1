"""`omni2-engine verify`: an engine against golden arrays of the original, or golden arrays made from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command()
    def verify(
        source: Annotated[
            str, typer.Argument(metavar="ENGINE", help="engine directory; with --write-goldens a checkpoint")
        ],
        goldens: Annotated[Path | None, typer.Option(help="directory of golden arrays (.npz)")] = None,
        json: Annotated[Path | None, typer.Option(help="also write the table as JSON to this file")] = None,
        threads: Annotated[int | None, typer.Option(help="processor threads")] = None,
        write_goldens: Annotated[
            Path | None, typer.Option(help="make golden arrays of a checkpoint in this directory (needs torch)")
        ] = None,
        decoder: Annotated[str | None, typer.Option(help="--write-goldens: the decoder, as in build")] = None,
        speech_encoder: Annotated[
            Path | None, typer.Option(help="--write-goldens: Whisper weights, as in build")
        ] = None,
        audio: Annotated[
            list[Path] | None, typer.Option(help="--write-goldens: a spoken question; repeat for more")
        ] = None,
        voice: Annotated[Path | None, typer.Option(help="--write-goldens: recording of a voice, 3 to 10 s")] = None,
    ) -> None:
        """Compare every stage with golden arrays; exit 1 on a miss or when nothing was compared."""
        from omni2_engine.errors import SettingError

        if (goldens is None) == (write_goldens is None):
            raise SettingError(
                "verify takes --goldens or --write-goldens", "give one directory, to compare with or to write to"
            )
        if goldens is not None:
            raise typer.Exit(0 if _compare(Path(source), goldens, json, threads) else 1)
        assert write_goldens is not None
        if decoder is None or voice is None or not audio:
            raise SettingError("--write-goldens lacks its inputs", "give --decoder, --voice and --audio, too")
        _write(source, decoder, speech_encoder, audio, voice, write_goldens)


def _compare(engine: Path, goldens: Path, json: Path | None, threads: int | None) -> bool:
    """Print the comparison; whether it passed. Loaded with the original's work, even if the manifest asks for less."""
    from omni2_engine.cli.require import require

    require("export", "onnx")
    from rich.console import Console
    from rich.text import Text

    from omni2_engine.engine import Engine
    from omni2_engine.model.config import EULER_STEPS
    from omni2_engine.model.manifest import LoadSettings
    from omni2_export.verify import ALL_CONTEXT, print_report, verify_engine, write_json

    loaded = Engine.load(
        engine,
        threads=threads,
        left_context=ALL_CONTEXT,
        warm_up=False,
        encoder="window",
        flow_steps=EULER_STEPS,
        flow_solver="euler",
    )
    with Console(stderr=True).status("reading goldens") as status:
        report = verify_engine(loaded, goldens, threads, lambda name: status.update(Text(f"comparing {name}")))
    manifest = loaded.directory.manifest
    print_report(report, f"{loaded.config.name}, preset {manifest.preset}")
    if manifest.settings != LoadSettings():
        typer.echo("compared with the whole window and all Euler steps; docs/less_work.md says what is lost without")
    if json is not None:
        write_json(report, json)
    return report.passed


def _write(
    checkpoint: str, decoder: str, speech_encoder: Path | None, audio: list[Path], voice: Path, target: Path
) -> None:
    """Make golden files and print their names."""
    from omni2_engine.cli.require import require

    require("torch", "torch")
    require("export", "yaml", "ml_dtypes", "huggingface_hub", "safetensors")
    from omni2_export.checkpoint import open_checkpoint
    from omni2_export.checkpoint.hub import resolve
    from omni2_export.reference.goldens import read_question, write_goldens
    from omni2_export.speaker import read_voice_file

    opened = open_checkpoint(
        resolve(checkpoint, revision=None, token=None, cache=None),
        decoder=resolve(decoder, revision=None, token=None, cache=None),
        speech_encoder=speech_encoder,
    )
    questions = {number: read_question(path, opened.config) for number, path in enumerate(audio, start=1)}
    for path in write_goldens(opened, questions, read_voice_file(voice), target):
        typer.echo(f"wrote {path}")
