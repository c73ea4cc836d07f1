"""What is measured: a checkpoint, given or of random weights, and engines built from it, kept for the next run."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from omni2_bench import random_checkpoint
from omni2_bench.random_checkpoint import PRESETS, CheckpointPaths, Dimensions, write_checkpoint
from omni2_engine.errors import Omni2Error, SettingError
from omni2_engine.model.config import ModelConfig
from omni2_engine.system.file_content import read_text
from omni2_export.build import BuildRequest, build_engine
from omni2_export.build.precision import GPU, parse_precision
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.cli.progress import BuildProgress
from omni2_export.tensorrt.targets import CPU

SEED = 1


def default_cache() -> Path:
    """Where checkpoints and engines are kept unless asked otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omni2-engine" / "bench"


@dataclass(frozen=True)
class BenchCheckpoint:
    """A checkpoint on disk.

    Args:
        name: tells it from others in the cache.
        size: of a random one, "" of one given.
        model, decoder, speech_encoder: its directories and files.
    """

    name: str
    size: str
    model: Path
    decoder: Path
    speech_encoder: Path | None = None

    def open(self) -> Checkpoint:
        """Open it; see `open_checkpoint`."""
        return open_checkpoint(self.model, decoder=self.decoder, speech_encoder=self.speech_encoder)


def dimensions_of(size: str, file: Path | None) -> Dimensions:
    """Dimensions of `--size`.

    Args:
        size: a released size, "tiny", or "custom".
        file: for "custom", JSON with `base`, a size, and the fields of it to change, modules as objects.

    Raises:
        SettingError: no such size, or a file that says nothing of the kind.
    """
    if size != "custom":
        if size not in PRESETS:
            raise SettingError(f"unknown size {size!r}", f"use one of {', '.join(PRESETS)}, custom")
        return PRESETS[size]
    if file is None:
        raise SettingError("a custom size needs its dimensions", "name a JSON file with --dimensions")
    try:
        changes = json.loads(read_text(file))
        base = PRESETS[changes.pop("base", "0.5B")]
        return base.changed(**changes)
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise SettingError(
            f"{file} gives no dimensions: {error}", 'write e.g. {"base": "tiny", "llm": {"layers": 4}}'
        ) from error


def size_of(config: ModelConfig) -> str | None:
    """The released size whose language model has these dimensions; the name of the checkpoint does not matter."""
    for size, dimensions in PRESETS.items():
        llm = dimensions.llm
        if (llm.hidden, llm.layers, llm.heads) == (config.llm.hidden, config.llm.layers, config.llm.heads):
            return size
    return None


def random_model(size: str, dimensions: Dimensions, cache: Path) -> BenchCheckpoint:
    """A checkpoint of random weights, written unless it is in the cache: its directory's name tells what is in it.

    Raises:
        Omni2Error: it cannot be written.
    """
    sources = sorted(Path(random_checkpoint.__file__).parent.glob("*.py"))
    code = b"".join(source.read_bytes() for source in sources)
    digest = hashlib.sha256(f"{dimensions} {SEED}".encode() + code).hexdigest()[:12]
    path = cache / f"checkpoint-{size}-{digest}"
    if not path.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=cache, prefix="unfinished-") as folder:
                write_checkpoint(Path(folder) / "checkpoint", dimensions, SEED)
                os.replace(Path(folder) / "checkpoint", path)
        except OSError as error:
            if not path.is_dir():  # else another run has just made the same
                raise Omni2Error(f"cannot write {path}: {error.strerror}", "free some space, or use --cache") from error
    paths = CheckpointPaths.below(path)
    return BenchCheckpoint(f"{size}-{digest}", size, paths.model, paths.decoder)


def released_model(size: str) -> BenchCheckpoint:
    """A checkpoint of random weights of a known size, in the default cache.

    Raises:
        SettingError: no such size.
        Omni2Error: it cannot be written.
    """
    cache = default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    return random_model(size, dimensions_of(size, None), cache)


def given_model(model: Path, decoder: Path, speech_encoder: Path | None) -> BenchCheckpoint:
    """A checkpoint the user has."""
    digest = hashlib.sha256(str((model.resolve(), decoder.resolve())).encode()).hexdigest()[:12]
    return BenchCheckpoint(f"{model.resolve().name}-{digest}", "", model, decoder, speech_encoder)


def built_engine(model: BenchCheckpoint, preset: str, voice: Path, cache: Path, target: str = CPU) -> Path:
    """The engine of a checkpoint at one preset; finished stages in the cache are used again.

    Args:
        model: the checkpoint.
        preset: of the target's presets.
        voice: a recording of the voice.
        cache: where engines are kept.
        target: "cpu", or the architecture of a GPU, which plans are then built for.

    Raises:
        Omni2Error: it cannot be built.
    """
    output = cache / f"engine-{model.name}-{preset}{'' if target == CPU else f'-{target}'}"
    if target == CPU:
        request = BuildRequest(model.open(), output, [voice], parse_precision(preset))
    else:
        formats = parse_precision(preset, GPU)
        request = BuildRequest(model.open(), output, [voice], target=target, formats=formats)
    with BuildProgress() as progress:
        build_engine(request, progress)
    return output
