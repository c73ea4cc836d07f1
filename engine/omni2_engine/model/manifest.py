"""The engine directory: what `build` writes and `Engine.load` reads. `manifest.json` says everything about the files
beside it.

manifest.json
graphs/      <stage>.onnx and <stage>.weights, for ONNX Runtime
plans/       <target>/<stage>.plan for TensorRT, and the kernels it compiled for them (runtime.cache)
tables/      token embeddings and the flow's noise, mapped into memory
text/        tokenizer.json, chat_template.jinja
speech/      tokenizer.json, units.npy
voices/      <name>.npy, one speaker vector each
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from omni2_engine.errors import EngineDirectoryError
from omni2_engine.model.config import EULER_STEPS, Frozen, ModelConfig
from omni2_engine.system.file_content import is_apple_double, placeholder, read_text

SCHEMA_VERSION = 3  # raise when stages and graphs no longer fit those of before
MANIFEST = "manifest.json"
PLANS = "plans"
RUNTIME_CACHE = "runtime.cache"
TIMING_CACHE = "timing.cache"
PREFILL_SUFFIX = "_prefill"  # behind a language model's name: a plan that prefills, where the model's own only decodes
REBUILD = "build the engine again with `omni2-engine build`"
HASH_CHUNK = 1 << 22  # bytes


class FileEntry(Frozen):
    """Size and content of one file."""

    size: int = Field(ge=0)
    sha256: str


class StageEntry(Frozen):
    """What one stage was built from, as a key, and the files it consists of."""

    key: str
    files: tuple[str, ...]


class PlanEntry(Frozen):
    """One TensorRT plan. It runs on GPUs of its target, with the very TensorRT that built it."""

    stage: str
    target: str = Field(description='architecture, such as "sm89"')
    flavour: str = Field(description='"tensorrt" or "tensorrt_rtx"')
    version: str = Field(description="of TensorRT")
    precision: str = Field(description="what it computes in, or how it stores weights")
    dimensions: dict[str, tuple[int, int, int]] = Field(
        description="least, usual and most value of each named dimension; all the same for a cache's capacity"
    )

    @property
    def file(self) -> str:
        """Its place in the engine directory."""
        return f"{PLANS}/{self.target}/{self.stage}.plan"


class LoadSettings(Frozen):
    """How an engine is loaded unless `Engine.load` is told otherwise; each is described there."""

    encoder: Literal["window", "tail"] = "window"
    flow_steps: int = Field(default=EULER_STEPS, gt=0)
    flow_solver: Literal["euler", "damped", "ab2"] = "euler"


class Manifest(Frozen):
    """Everything the engine needs to know about a built model."""

    schema_version: int
    model: ModelConfig
    preset: str
    precision: dict[str, str] = Field(description="storage of the linear layers per stage")
    targets: tuple[str, ...] = Field(description='devices it is for: "cpu", architectures of GPUs')
    positions: int = Field(gt=0, description="length of the rotary tables of both language models")
    default_voice: str
    settings: LoadSettings = LoadSettings()
    tools: dict[str, str] = Field(description="versions of what built the engine")
    stages: dict[str, StageEntry]
    files: dict[str, FileEntry]
    plans: tuple[PlanEntry, ...] = ()

    @property
    def longest_context(self) -> int:
        """Positions a conversation may have at most: what the language model was made for, and the tables cover."""
        return min(self.positions, self.model.llm.max_positions)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(HASH_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


class EngineDirectory:
    """An engine directory on disk, opened and found whole.

    Args:
        path: the directory, or its manifest.

    Attributes:
        path: the directory.
        manifest: what it says.

    Raises:
        EngineDirectoryError: it is not there, not an engine, of another schema version, or files are missing or cut
            short.
    """

    def __init__(self, path: Path) -> None:
        if path.name == MANIFEST and is_engine(path):
            path = path.parent
        self.path = path
        self.manifest = _read_manifest(path)
        for name, entry in self.manifest.files.items():
            size = _size(path / name)
            if (size is None or size != entry.size) and (found := placeholder(path / name, text=False)):
                raise EngineDirectoryError(*found)
            if size is None:
                raise EngineDirectoryError(f"{path / name} is missing", REBUILD)
            if size != entry.size:
                raise EngineDirectoryError(f"{path / name} has {size} bytes and should have {entry.size}", REBUILD)

    def graph(self, stage: str) -> Path:
        """Path of a stage's graph."""
        return self.path / "graphs" / f"{stage}.onnx"

    def plan(self, stage: str, target: str, flavour: str, version: str) -> PlanEntry:
        """The plan of a stage for one GPU and one TensorRT.

        Args:
            stage: its name.
            target: architecture of the GPU it is to run on, such as "sm89".
            flavour, version: of the TensorRT that is to run it.

        Raises:
            EngineDirectoryError: there is none; says which there are, and how to build the right one.
        """
        plans = [plan for plan in self.manifest.plans if plan.stage == stage]
        wanted = f"{stage} for {target}, {flavour} {version}"
        remedy = f"build it with `omni2-engine build --target {target}` where that TensorRT is installed"
        for plan in plans:
            if (plan.target, plan.flavour, plan.version) == (target, flavour, version):
                return plan
        there = "; ".join(f"one for {plan.target}, {plan.flavour} {plan.version}" for plan in plans) or "none"
        raise EngineDirectoryError(f"{self.path} has no plan of {wanted}; there is {there}", remedy)

    def runtime_cache(self, target: str) -> Path:
        """Where kernels that TensorRT-RTX compiled for a target's plans are kept; not part of the manifest."""
        return self.path / PLANS / target / RUNTIME_CACHE

    def voices(self) -> list[str]:
        """Names of the stored voices."""
        return sorted(path.stem for path in (self.path / "voices").glob("*.npy") if not is_apple_double(path))

    def check(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Compare the hash of every file with the manifest's.

        Args:
            progress: called with each file's name before it is read.

        Raises:
            EngineDirectoryError: a file's content has changed.
        """
        for name, entry in self.manifest.files.items():
            progress(name)
            if sha256(self.path / name) != entry.sha256:
                raise EngineDirectoryError(f"{self.path / name} is corrupt: its sha256 is not the manifest's", REBUILD)


def is_engine(path: Path) -> bool:
    """Whether a path names an engine directory, or the manifest of one."""
    try:
        return (path if path.name == MANIFEST and path.is_file() else path / MANIFEST).is_file()
    except OSError:  # too long for a name, or not to be looked at
        return False


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _read_manifest(path: Path) -> Manifest:
    if found := placeholder(path / MANIFEST, text=True):
        raise EngineDirectoryError(*found)
    try:
        data = json.loads(read_text(path / MANIFEST))
    except FileNotFoundError:
        if not path.exists() and Path(f"{os.path.realpath(path)}.partial").exists():
            raise EngineDirectoryError(
                f"{path} was not finished building",
                "run the same `omni2-engine build` again; finished stages are reused",
            ) from None
        raise EngineDirectoryError(
            f"{path} is not an engine directory: it has no {MANIFEST}", "make one with `omni2-engine build`"
        ) from None
    except NotADirectoryError:
        raise EngineDirectoryError(
            f"{path} is not an engine directory: it is a file", "name the directory that `omni2-engine build` made"
        ) from None
    except (OSError, ValueError) as error:
        raise EngineDirectoryError(f"{path / MANIFEST} cannot be read: {error}", REBUILD) from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise EngineDirectoryError(
            f"{path} has engine schema {version}, this omni2-engine reads {SCHEMA_VERSION}",
            "upgrade with `pip install -U omni2-engine`, or build the engine again with this version",
        )
    if version != SCHEMA_VERSION:
        raise EngineDirectoryError(
            f"{path} has engine schema {version!r}, this omni2-engine reads {SCHEMA_VERSION}", REBUILD
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise EngineDirectoryError(f"{path / MANIFEST} is damaged at {where}: {first['msg']}", REBUILD) from None
