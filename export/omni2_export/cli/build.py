"""`omni2-engine build`: checkpoint → engine directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command()
    def build(
        checkpoint: Annotated[str, typer.Argument(help="LLaMA-Omni2 directory, or its Hugging Face id")],
        decoder: Annotated[str, typer.Option(help="CosyVoice2 decoder: directory (cosy2_decoder) or Hugging Face id")],
        voice: Annotated[
            list[Path], typer.Option(help="recording of a voice, 3 to 10 s; repeat for more, first is default")
        ],
        output: Annotated[Path, typer.Option("--output", "-o", help="engine directory to make")],
        speech_encoder: Annotated[
            Path | None, typer.Option(help="Whisper .pt or .safetensors, if the checkpoint has no encoder weights")
        ] = None,
        precision: Annotated[
            str, typer.Option(help="exact, balanced, fast, live (GPU: fp8, mixed); then changes: fast,encoder=fp32")
        ] = "exact",
        encoder: Annotated[
            str | None, typer.Option(help="window, or tail to compute no silence, unless told otherwise when loaded")
        ] = None,
        target: Annotated[
            str, typer.Option(help="devices the engine is for: cpu, GPUs as sm89; several with commas")
        ] = "cpu",
        sessions: Annotated[int, typer.Option(help="GPU: conversations decoded in one call")] = 8,
        max_context: Annotated[int, typer.Option(help="GPU: positions of a conversation")] = 4096,
        max_new_tokens: Annotated[int, typer.Option(help="GPU: text tokens of a turn at most")] = 256,
        left_context: Annotated[float, typer.Option(help="GPU: seconds of its own sound the flow sees")] = 30.0,
        force: Annotated[bool, typer.Option("--force", help="GPU: build though memory seems too small")] = False,
        check: Annotated[
            bool, typer.Option("--check", help="compare every graph with its torch module (needs torch)")
        ] = False,
        revision: Annotated[str | None, typer.Option(help="revision of the checkpoint on the hub")] = None,
        token: Annotated[str | None, typer.Option(help="hub token; HF_TOKEN by default", envvar="HF_TOKEN")] = None,
        cache: Annotated[Path | None, typer.Option(help="hub cache; HF_HOME by default")] = None,
    ) -> None:
        """Build an engine directory from a checkpoint."""
        from omni2_engine.cli.require import require
        from omni2_engine.errors import SettingError

        require("export", "onnx_ir", "yaml", "ml_dtypes", "huggingface_hub", "safetensors")
        from omni2_export.build import BuildRequest, build_engine
        from omni2_export.build.precision import GPU, parse_precision
        from omni2_export.checkpoint import open_checkpoint
        from omni2_export.checkpoint.hub import resolve
        from omni2_export.cli.progress import BuildProgress
        from omni2_export.tensorrt.shapes import Sizes
        from omni2_export.tensorrt.targets import check_buildable, parse_targets

        targets = parse_targets(target)
        precisions = parse_precision(precision if targets.cpu else "exact").loaded_with(encoder)
        formats = parse_precision(precision if targets.gpus else "exact", GPU).loaded_with(encoder)
        sizes = Sizes(sessions, max_context, max_new_tokens, left_context=left_context)
        if targets.gpus:
            check_buildable(targets.gpus)
        if check:
            require("torch", "torch")
            if not targets.cpu:
                raise SettingError("--check runs graphs on the CPU", "add cpu to --target, or leave it out")
        model_path = resolve(checkpoint, revision=revision, token=token, cache=cache)
        decoder_path = resolve(decoder, revision=None, token=token, cache=cache)
        opened = open_checkpoint(model_path, decoder=decoder_path, speech_encoder=speech_encoder)
        for warning in opened.warnings:
            typer.echo(f"warning: {warning}", err=True)
        request = BuildRequest(opened, output, voice, precisions, target, formats, sizes, force)
        with BuildProgress() as progress:
            manifest = build_engine(request, progress)
        size = sum(entry.size for entry in manifest.files.values())
        typer.echo(f"{output}: {manifest.model.name}, {manifest.preset}, {size / 2**20:.0f} MiB")
        if check:
            from omni2_export.check import check_engine

            raise typer.Exit(0 if check_engine(output, opened) else 1)
