"""`omni2-engine bench latency`."""

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
    def latency(
        audio: Audio,
        out: Out,
        size: Size = None,
        dimensions: Dimensions = None,
        checkpoint: CheckpointDirectory = None,
        decoder: Decoder = None,
        speech_encoder: SpeechEncoder = None,
        voice: Voice = None,
        precision: Precision = "exact,fast,live",
        rounds: Annotated[int, typer.Option(min=1, help="how often everything runs, in turns")] = 3,
        threads: Threads = 2,
        chunks: Annotated[int, typer.Option(min=1, help="chunks of the answer")] = 25,
        left_context: Annotated[float, typer.Option(min=0, help="seconds, of the runs with a short memory")] = 4.0,
        device: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt; engines are built for it")] = "cpu",
        cache: Cache = None,
    ) -> None:
        """First chunk, whole answer and cost per chunk beside the original's algorithm in PyTorch."""
        options.require_packages()
        from omni2_bench.common.gpu import choose
        from omni2_bench.latency.results import run
        from omni2_bench.latency.rounds import LatencyPlan

        choice = choose(device)
        model, folder = options.measured_model(size, dimensions, checkpoint, decoder, speech_encoder, cache)
        question, voice = options.existing_file(audio), options.existing_file(voice or audio)
        plan = LatencyPlan(options.presets(precision), question, voice, rounds, threads, chunks, left_context, choice)
        typer.echo(run(plan, model, folder, out, typer.echo))
