"""`omni2-engine bench`: how fast the engine is beside the original's algorithm, and beside what the machine can do."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omni2_bench.quality import command as quality
from omni2_bench.simulate import command as simulate

if TYPE_CHECKING:
    from omni2_bench.common.models import Model

SIZES = "tiny, 0.5B, 1.5B, 3B, 7B, 14B, 32B or custom: a checkpoint of random weights of these dimensions"
Size = Annotated[str | None, typer.Option(help=SIZES)]
Dimensions = Annotated[Path | None, typer.Option(help="JSON file of a custom size's dimensions")]
CheckpointDirectory = Annotated[Path | None, typer.Option("--checkpoint", help="measure this checkpoint instead")]
Decoder = Annotated[Path | None, typer.Option(help="its decoder directory")]
SpeechEncoder = Annotated[Path | None, typer.Option(help="its Whisper file, if it has no encoder weights of its own")]
Audio = Annotated[Path, typer.Option(help="spoken question")]
Voice = Annotated[Path | None, typer.Option(help="voice to answer in; the question's by default")]
Precision = Annotated[str, typer.Option(help="presets, separated by commas")]
Threads = Annotated[int, typer.Option(min=1, help="processor threads")]
Out = Annotated[Path, typer.Option(help="directory for results; a rerun with the same one goes on")]
Cache = Annotated[Path | None, typer.Option(help="where random checkpoints and engines are kept")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    bench = typer.Typer(help="Measure the engine.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(bench, name="bench")
    simulate.register(bench)
    quality.register(bench)

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
        precision: Precision = "exact,fast",
        rounds: Annotated[int, typer.Option(min=1, help="how often everything runs, in turns")] = 3,
        threads: Threads = 2,
        chunks: Annotated[int, typer.Option(min=1, help="chunks of the answer")] = 25,
        left_context: Annotated[float, typer.Option(min=0, help="seconds, of the runs with a short memory")] = 4.0,
        device: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt; engines are built for it")] = "cpu",
        cache: Cache = None,
    ) -> None:
        """First chunk, whole answer and cost per chunk beside the original's algorithm in PyTorch."""
        _require()
        from omni2_bench.common.gpu import choose
        from omni2_bench.latency.results import run
        from omni2_bench.latency.rounds import Plan

        choice = choose(device)
        model, folder = _model(size, dimensions, checkpoint, decoder, speech_encoder, cache)
        question, voice = _file(audio), _file(voice or audio)
        plan = Plan(_presets(precision), question, voice, rounds, threads, chunks, left_context, choice)
        typer.echo(run(plan, model, folder, out, typer.echo))

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
        _require()
        from omni2_bench.limits.results import LimitsPlan, run

        model, folder = _model(size, dimensions, checkpoint, decoder, speech_encoder, cache)
        plan = LimitsPlan(_presets(precision), _file(audio), _file(voice or audio), threads, seconds)
        typer.echo(run(plan, model, folder, out, typer.echo))

    @bench.command()
    def batching(
        voice: Annotated[Path, typer.Option(help="recording of a voice, to build the engine with")],
        out: Out,
        size: Size = None,
        dimensions: Dimensions = None,
        checkpoint: CheckpointDirectory = None,
        decoder: Decoder = None,
        speech_encoder: SpeechEncoder = None,
        precision: Precision = "balanced,fast",
        conversations: Annotated[str, typer.Option(help="how many in one call, separated by commas")] = "1,2,4,8",
        context: Annotated[int, typer.Option(min=1, help="positions each of them has where tokens are decoded")] = 400,
        rounds: Annotated[int, typer.Option(min=1, help="how often everything runs, in turns")] = 10,
        threads: Threads = 2,
        cache: Cache = None,
    ) -> None:
        """Several conversations in one call of a stage, beside one after the other."""
        _require_export()
        from omni2_bench.lab.batching import BatchingPlan, run

        model, folder = _model(size, dimensions, checkpoint, decoder, speech_encoder, cache)
        plan = BatchingPlan(_presets(precision), _counts(conversations), context, rounds, _file(voice), threads)
        typer.echo(run(plan, model, folder, out, typer.echo))

    @bench.command()
    def overlap(
        audio: Audio,
        out: Out,
        size: Size = None,
        dimensions: Dimensions = None,
        checkpoint: CheckpointDirectory = None,
        decoder: Decoder = None,
        speech_encoder: SpeechEncoder = None,
        voice: Voice = None,
        precision: Precision = "exact,fast",
        rounds: Annotated[int, typer.Option(min=1, help="how often everything runs, in turns")] = 3,
        threads: Threads = 2,
        chunks: Annotated[int, typer.Option(min=1, help="chunks of the answer")] = 12,
        cache: Cache = None,
    ) -> None:
        """One answer with its stages overlapping, beside one step at a time."""
        _require_export()
        from omni2_bench.lab.overlap import OverlapPlan, run

        model, folder = _model(size, dimensions, checkpoint, decoder, speech_encoder, cache)
        plan = OverlapPlan(_presets(precision), _file(audio), _file(voice or audio), rounds, threads, chunks)
        typer.echo(run(plan, model, folder, out, typer.echo))

    @bench.command()
    def build(
        voice: Annotated[Path, typer.Option(help="recording of a voice")],
        out: Annotated[Path, typer.Option(help="engine directory to make; what is there already is not measured")],
        size: Size = None,
        dimensions: Dimensions = None,
        checkpoint: CheckpointDirectory = None,
        decoder: Decoder = None,
        speech_encoder: SpeechEncoder = None,
        precision: Annotated[str, typer.Option(help="as of `omni2-engine build`")] = "balanced",
        cache: Cache = None,
    ) -> None:
        """Memory and time of every stage of a build, beside the bound that lets a 7B model build on 24 GB."""
        _require_export()
        from rich.console import Console

        from omni2_bench.lab.build_memory import measure_build, table
        from omni2_export.build import BuildRequest
        from omni2_export.build.precision import parse_precision

        model, _ = _model(size, dimensions, checkpoint, decoder, speech_encoder, cache)
        costs = measure_build(BuildRequest(model.open(), out, [_file(voice)], parse_precision(precision)))
        Console(markup=False, emoji=False).print(table(costs, out))

    @bench.command()
    def precision(
        audio: Audio,
        out: Out,
        size: Size = None,
        dimensions: Dimensions = None,
        checkpoint: CheckpointDirectory = None,
        decoder: Decoder = None,
        speech_encoder: SpeechEncoder = None,
        rows: Annotated[str, typer.Option(help="rows of the table, separated by commas; all by default")] = "",
        threads: Threads = 2,
        cache: Cache = None,
    ) -> None:
        """Every graph in every number format of a GPU against float32, in dB, run on the CPU."""
        _require_export()
        from omni2_bench.lab.precision import PrecisionPlan, run

        model, _ = _model(size, dimensions, checkpoint, decoder, speech_encoder, cache)
        plan = PrecisionPlan(_file(audio), threads, tuple(part.strip() for part in rows.split(",") if part.strip()))
        typer.echo(run(plan, model, out, typer.echo))

    @bench.command()
    def plans(
        size: Annotated[str, typer.Option(help=SIZES)],
        dimensions: Dimensions = None,
        target: Annotated[str, typer.Option(help="architectures, separated by commas")] = "sm89",
        precision: Annotated[str, typer.Option(help="as of `omni2-engine build` for a GPU")] = "balanced",
        stage: Annotated[str, typer.Option(help="only these plans, separated by commas")] = "",
        sessions: Annotated[int, typer.Option(help="conversations decoded in one call")] = 8,
        structure: Annotated[
            bool, typer.Option("--structure", help="do not quantise: random weights as they are stored")
        ] = False,
        limit: Annotated[float, typer.Option(min=0.1, help="GB of memory none may take more of")] = 8.0,
        scratch: Annotated[Path | None, typer.Option(help="where there is room; the system's place by default")] = None,
    ) -> None:
        """Size, time and memory of TensorRT plans of random weights; needs no GPU, exits 1 above `--limit`."""
        _require_export()
        from rich.console import Console

        from omni2_bench.common.models import dimensions_of
        from omni2_bench.lab.plans import measure_plans, random_modules, table, within
        from omni2_export.build.precision import GPU, parse_precision
        from omni2_export.tensorrt.shapes import Sizes
        from omni2_export.tensorrt.targets import parse_targets

        config, modules = random_modules(dimensions_of(size, dimensions))
        formats, targets = parse_precision(precision, GPU), parse_targets(target).gpus
        stages = [name.strip() for name in stage.split(",") if name.strip()]
        folder = scratch or Path(tempfile.gettempdir())
        costs = measure_plans(config, modules, formats, Sizes(sessions), targets, folder, stages, structure, typer.echo)
        width = None if sys.stdout.isatty() else 160
        Console(width=width, markup=False, emoji=False).print(table(costs, limit))
        raise typer.Exit(0 if all(within(cost, limit) for cost in costs) else 1)


def _require_export() -> None:
    from omni2_engine.cli.require import require

    require("export", "onnx", "onnx_ir", "ml_dtypes", "yaml")


def _require() -> None:
    from omni2_engine.cli.require import require

    _require_export()
    require("torch", "torch")
    require("bench", "matplotlib")


def _model(
    size: str | None,
    dimensions: Path | None,
    checkpoint: Path | None,
    decoder: Path | None,
    speech_encoder: Path | None,
    cache: Path | None,
) -> tuple[Model, Path]:
    from omni2_bench.common.models import default_cache, dimensions_of, given_model, random_model
    from omni2_engine.errors import SettingError

    folder = cache or default_cache()
    if (size is None) == (checkpoint is None):
        raise SettingError("there must be one thing to measure", "give either --size or --checkpoint with --decoder")
    if checkpoint is not None:
        if decoder is None:
            raise SettingError("a checkpoint needs its decoder", "give its directory with --decoder")
        return given_model(checkpoint, decoder, speech_encoder), folder
    assert size is not None
    folder.mkdir(parents=True, exist_ok=True)
    return random_model(size, dimensions_of(size, dimensions), folder), folder


def _presets(text: str) -> tuple[str, ...]:
    from omni2_engine.errors import SettingError
    from omni2_export.build import PRESETS

    presets = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for preset in presets:
        if preset not in PRESETS:
            raise SettingError(f"unknown precision {preset!r}", f"use some of {', '.join(PRESETS)}")
    return presets


def _counts(text: str) -> tuple[int, ...]:
    from omni2_engine.errors import SettingError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SettingError(f"{text!r} are no numbers of conversations", "write e.g. 1,2,4,8")
    return tuple(sorted({int(part) for part in parts}))


def _file(path: Path) -> Path:
    from omni2_engine.errors import AudioError

    if not path.is_file():
        raise AudioError(f"there is no file {path}", "check the name")
    return path
