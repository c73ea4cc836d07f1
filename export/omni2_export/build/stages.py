"""The parts an engine directory is made of: what each is built from, how large it gets, and how it is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir

from omni2_engine.errors import CheckpointError
from omni2_engine.sampling import DrawKey, Stream, normal
from omni2_engine.text import ChatTemplate, UnitTable
from omni2_engine.text.units import NO_UNIT
from omni2_export.build.graphs import LONGEST_CONTEXT, GraphSpec, Reductions, graph_specs
from omni2_export.build.precision import Precisions
from omni2_export.checkpoint import Checkpoint
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.linear import Precision
from omni2_export.tokenizer_files import load_tokenizer, special_tokens, write_tokenizer

BUILDER_VERSION = 9  # raise when a graph builder changes what it writes, so that old stages are not reused
NOISE_FRAMES = 15_000  # spec §8.2
NOISE_SEED = 1986  # any constant will do; this is the original's seed
BYTES = {  # per weight of a linear layer, its share of the scales included
    Precision.FP32: 4.0,
    Precision.INT8: 1 + 4 / 128,
    Precision.INT4: 0.5 + 4 / 128,
    Precision.DYNAMIC: 1.0,
    Precision.FP8: 1.0,
    Precision.MIXED: 0.85,  # 0.8 in large language models, 0.87 in small ones
    Precision.W8A8: 1.0,
}
CPU_BYTES = {**BYTES, Precision.INT4: 0.75}  # smaller blocks, and int8 in part
OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class BuildStage:
    """One part of the engine.

    Args:
        name: of the part, in progress and manifest.
        key: names its inputs; the same key means the same files.
        size: about how many bytes it will take.
        write: writes its files below a directory, reporting bytes as they are written.
    """

    name: str
    key: str
    size: int
    write: Callable[[Path, OnBytes], None]


def plan_shared_stages(checkpoint: Checkpoint) -> list[BuildStage]:
    """Every part that is the same on all devices, but for those about voices."""

    def table(module: str) -> BuildStage:
        tensors = checkpoint.modules[module]

        def write(directory: Path, on_bytes: OnBytes) -> None:
            (directory / "tables").mkdir()
            _write_table(directory / "tables" / f"{module}_embed.npy", tensors, on_bytes)

        rows, width = tensors.shape("embed_tokens.weight")
        size = rows * width * tensors.dtype("embed_tokens.weight").itemsize
        name = f"{module}_table"
        return BuildStage(name, stage_key(name, file_identity(checkpoint.sources[module])), size, write)

    def text_files(name: str, source: Path, write_files: Callable[[Path], None]) -> BuildStage:
        def write(directory: Path, on_bytes: OnBytes) -> None:
            (directory / name).mkdir()
            write_files(directory / name)

        kinds = (".json", ".txt", ".jinja")
        files = sorted(path for path in source.iterdir() if path.suffix in kinds and path.is_file())
        return BuildStage(name, stage_key(name, file_identity(files)), 0, write)

    def write_text(directory: Path) -> None:
        write_tokenizer(checkpoint.text_tokenizer, directory / "tokenizer.json")
        ChatTemplate(checkpoint.chat_template, special_tokens(checkpoint.text_tokenizer)).save(directory)

    def write_speech(directory: Path) -> None:
        loaded = write_tokenizer(checkpoint.speech_tokenizer, directory / "tokenizer.json")
        table = UnitTable.build(loaded.tokenizer)
        if not (table.table != NO_UNIT).any():
            raise CheckpointError(
                f"{checkpoint.speech_tokenizer} has no token for any speech unit",
                "download the whole model directory: added_tokens.json or tokenizer.json is incomplete",
            )
        table.save(directory / "units.npy")

    mel = checkpoint.config.estimator.mel
    return [
        text_files("text", checkpoint.text_tokenizer, write_text),
        text_files("speech", checkpoint.speech_tokenizer, write_speech),
        table("llm"),
        table("speech_lm"),
        BuildStage("noise", stage_key("noise", mel), NOISE_FRAMES * mel * 4, _noise_writer(mel)),
    ]


def plan_graph_stages(checkpoint: Checkpoint, precisions: Precisions) -> list[BuildStage]:
    """The graphs that ONNX Runtime runs, in the order they are built."""
    scored = voiced_ids(checkpoint) if precisions.units_alone else None
    caches = ir.DataType.FLOAT16 if precisions.half_caches else None
    reduced: dict[str, object] = {} if scored is None else {"speech_lm": scored}
    reduced |= {} if caches is None else {"flow_step": caches.name}

    def stage(spec: GraphSpec) -> BuildStage:
        precision = precisions.of(spec.stage) if spec.quantised else Precision.FP32

        def write(directory: Path, on_bytes: OnBytes) -> None:
            folder = directory / "graphs"
            folder.mkdir()
            spec.write(folder, precision, on_bytes=on_bytes)

        sources = checkpoint.sources[spec.module] if spec.module else []
        size = graph_bytes(checkpoint.modules[spec.module], CPU_BYTES[precision]) if spec.module else 0
        dimensions = checkpoint.config.model_dump(mode="json")
        less = [reduced[spec.name]] if spec.name in reduced else []
        key = stage_key(spec.name, dimensions, precision.value, LONGEST_CONTEXT, file_identity(sources), *less)
        return BuildStage(spec.name, key, size, write)

    specs = graph_specs(checkpoint.config, checkpoint.modules, reductions=Reductions(scored, caches))
    return [stage(spec) for spec in specs.values()]


def voiced_ids(checkpoint: Checkpoint) -> list[int]:
    """Ids of speech tokens that say a unit by themselves, and of the end, ascending."""
    table = UnitTable.build(load_tokenizer(checkpoint.speech_tokenizer).tokenizer).table
    voiced = np.flatnonzero((table >= 0) & (table < checkpoint.config.flow_encoder.units))
    known = voiced[voiced < checkpoint.config.speech_lm.vocab]
    return sorted({*known.tolist(), checkpoint.config.tokens.speech_eos})


def _noise_writer(mel: int) -> Callable[[Path, OnBytes], None]:
    def write(directory: Path, on_bytes: OnBytes) -> None:
        (directory / "tables").mkdir()
        noise = normal((NOISE_FRAMES, mel), DrawKey(NOISE_SEED, Stream.FLOW_NOISE, 0), 0)
        np.save(directory / "tables" / "noise.npy", noise)
        on_bytes(noise.nbytes)

    return write


def _write_table(path: Path, tensors: Tensors, on_bytes: OnBytes) -> None:
    """Token embeddings as the checkpoint stores them, piece by piece; bfloat16, which NumPy lacks, as uint16."""
    shape, storage = tensors.shape("embed_tokens.weight"), tensors.dtype("embed_tokens.weight")
    half = storage == ml_dtypes.bfloat16
    dtype = np.dtype(np.uint16) if half else np.dtype(np.float16 if storage == np.float16 else np.float32)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    step = max(1, (1 << 22) // shape[1])
    with path.open("wb") as file:  # not mapped: with the disk full that would end the process with SIGBUS
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, shape[0], step):
            rows = tensors.rows("embed_tokens.weight", start, min(start + step, shape[0]))
            stored = rows.astype(ml_dtypes.bfloat16).view(np.uint16) if half else rows.astype(dtype)
            file.write(stored.data)
            on_bytes(stored.nbytes)


def graph_bytes(tensors: Tensors, matrix: float, other: float = 4.0) -> int:
    """About how many bytes a module's graph takes.

    Args:
        tensors: of the module.
        matrix: bytes that a weight of a linear layer takes.
        other: bytes that any other weight takes.
    """
    total = 0.0
    for name in tensors.names():
        shape = tensors.shape(name)
        linear = len(shape) == 2 and not name.startswith(("projector", "positional"))
        if not name.startswith("embed_tokens"):  # has a file of its own
            total += float(np.prod(shape)) * (matrix if linear else other)
    return int(total)


def file_identity(paths: list[Path]) -> list[tuple[str, int, int]]:
    """What tells one version of files from another without reading them."""
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def stage_key(*parts: object) -> str:
    """The key of a stage that depends on these parts, any JSON data."""
    return hashlib.sha256(json.dumps([BUILDER_VERSION, *parts], sort_keys=True).encode()).hexdigest()[:32]
