"""Options that several commands have, and what they come to. Heavy imports wait until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from omni2_bench.common.models import BenchCheckpoint

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


def require_packages() -> None:
    """Check that what latency and limits need is installed.

    Raises:
        BackendError: it is not.
    """
    from omni2_engine.cli.require import require

    require("export", "onnx", "onnx_ir", "ml_dtypes", "yaml")
    require("torch", "torch")
    require("bench", "matplotlib")


def measured_model(
    size: str | None,
    dimensions: Path | None,
    checkpoint: Path | None,
    decoder: Path | None,
    speech_encoder: Path | None,
    cache: Path | None,
) -> tuple[BenchCheckpoint, Path]:
    """The checkpoint to measure, and the folder that keeps engines built from it.

    Raises:
        SettingError: neither or both of size and checkpoint are given, or a size that does not exist.
        Omni2Error: the checkpoint cannot be written.
    """
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


def presets(text: str) -> tuple[str, ...]:
    """The presets of `--precision`.

    Raises:
        SettingError: one does not exist.
    """
    from omni2_engine.errors import SettingError
    from omni2_export.build import PRESETS

    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in PRESETS:
            raise SettingError(f"unknown precision {name!r}", f"use some of {', '.join(PRESETS)}")
    return names


def existing_file(path: Path) -> Path:
    """A recording that is there.

    Raises:
        AudioError: it is not.
    """
    from omni2_engine.errors import AudioError

    if not path.is_file():
        raise AudioError(f"there is no file {path}", "check the name")
    return path
