"""`omni2-engine bench limits`."""

from __future__ import annotations

from typing import Annotated

import typer

from omni2_bench.common import options
from omni2_bench.common.options import (
    Audio,
    Cache,
    CheckpointDirectory,
    Decoder,
    Dimensions,
    Out,
    Precision,
    Size,
    SpeechEncoder,
    Threads,
    Voice,
)


def register(bench: typer.Typer) -> None:
    """Add the command to `omni2-engine bench`."""

    @bench.command()
    def limits(
        audio: Audio,
        out: Out,
        size: Size = None,
        dimensions: Dimensions = None,
        checkpoint: CheckpointDirectory = None,
        decoder: Decoder = None,
        speech_encoder: SpeechEncoder = None,
        voice: Voice = None,
        precision: Precision = "exact,balanced,fast",
        threads: Threads = 2,
        seconds: Annotated[float, typer.Option(min=0.01, help="how long to try for every rate")] = 2.0,
        cache: Cache = None,
    ) -> None:
        """This machine's memory bandwidth and GEMM rate, and what share of them every stage reaches."""
        options.require_packages()
        from omni2_bench.limits.results import LimitsPlan, run

        model, folder = options.measured_model(size, dimensions, checkpoint, decoder, speech_encoder, cache)
        question, voice = options.existing_file(audio), options.existing_file(voice or audio)
        plan = LimitsPlan(options.presets(precision), question, voice, threads, seconds)
        typer.echo(run(plan, model, folder, out, typer.echo))
