"""How much of the signal every graph keeps in every number format of a GPU, against float32, in dB, on the CPU.

python -m omni2_bench.lab.precision --size 0.5B --audio question.wav
"""

from __future__ import annotations

import math
import tempfile
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from omni2_bench.common.models import released_model
from omni2_bench.common.results import table
from omni2_bench.lab.probes import QUESTIONS, Material, ProbeRow
from omni2_engine.audio.source import read_audio
from omni2_engine.backends.base.graph import Graph
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.model.config import WHISPER_SAMPLE_RATE
from omni2_engine.model.manifest import PREFILL_SUFFIX
from omni2_export.build.graphs import GraphSpec, graph_specs
from omni2_export.build.precision import CHOICES, COMPUTE, GPU, Precisions
from omni2_export.checkpoint import Checkpoint
from omni2_export.graphs.builder import Numerics
from omni2_export.graphs.linear import Precision
from omni2_export.narrow_backend import NarrowBackend
from omni2_export.verify.rows import PERFECT, snr

SEED = 0  # of the random part of the inputs
LANGUAGE_MODELS = ("llm", "speech_lm")


@dataclass(frozen=True)
class NumberFormat:
    """One number format, a column of the table.

    Args:
        name: of the column.
        storage: as `--precision` names it for a GPU.
        emulated: every operator computed in float32 and its result rounded (`omni2_export.rounded`), instead of by
            ONNX Runtime's own kernels.
    """

    name: str
    storage: str
    emulated: bool = False

    def fits(self, spec: GraphSpec) -> bool:
        """Whether it is of interest for a graph: a stage computes in a type or does not, whether that is offered or
        not; weights are stored as it is offered."""
        offered = CHOICES[GPU].get(spec.stage)
        if offered is None:  # always float32
            return self.storage == "fp32"
        return self.storage in COMPUTE or (spec.quantised and self.storage in offered)

    def precisions(self, spec: GraphSpec) -> dict[str, Precision]:
        """Of the linear layers of every graph that a stage has, by name: one, or another for prefill beside it."""
        if not spec.quantised:
            return {spec.name: Precision.FP32}
        formats = Precisions(self.name, {spec.stage: self.storage}, GPU)
        graphs = {spec.name: formats.of(spec.stage)}
        if formats.plan_storage(second := f"{spec.stage}{PREFILL_SUFFIX}") is not None:
            graphs[second] = formats.of(second)
        return graphs

    def numerics(self, spec: GraphSpec) -> Numerics:
        """As for a GPU, but for the layout of the flow's caches: its stage on the CPU knows its own alone."""
        compute = COMPUTE[self.storage.partition("+")[0]]
        return Numerics(compute, doubles=False, device=spec.stage in LANGUAGE_MODELS)


VARIANTS = (
    NumberFormat("fp32", "fp32"),
    NumberFormat("fp16", "fp16"),
    NumberFormat("fp16, rounded", "fp16", emulated=True),
    NumberFormat("bf16, rounded", "bf16", emulated=True),
    NumberFormat("fp16+int8", "fp16+int8"),
    NumberFormat("fp16+int4", "fp16+int4"),
    NumberFormat("fp16+fp8", "fp16+fp8"),
    NumberFormat("fp16+mixed", "fp16+mixed"),
    NumberFormat("fp16+fp8+mixed", "fp16+fp8+mixed"),
)


@dataclass(frozen=True)
class ArraySnr:
    """What one array of a row keeps in one column: `snr` in dB, NaN where a number is not finite."""

    row: str
    array: str
    variant: str
    snr: float


def main(
    size: Annotated[str, typer.Option(help="of the random checkpoint")],
    audio: Annotated[Path, typer.Option(help="spoken question")],
    rows: Annotated[str, typer.Option(help="rows of the table, separated by commas; all by default")] = "",
    threads: Annotated[int, typer.Option(help="processor threads")] = 2,
) -> None:
    """Measure, and print the table of docs/number_formats.md."""
    chosen = [part.strip() for part in rows.split(",") if part.strip()]
    questions = [question for question in QUESTIONS if not chosen or question.name in chosen]
    typer.echo(findings_table(measure(released_model(size).open(), audio, questions, threads)))


def findings_table(findings: Iterable[ArraySnr]) -> str:
    """A row per array, a column per number format."""
    cells: dict[str, dict[str, float]] = {}
    for finding in findings:
        label = f"{finding.row}: {finding.array}".replace("_", " ")
        cells.setdefault(label, {})[finding.variant] = finding.snr
    names = [variant.name for variant in VARIANTS]
    return table(["", *names], [[label, *(_cell(row.get(name)) for name in names)] for label, row in cells.items()])


def _cell(decibels: float | None) -> str:
    if decibels is None:
        return ""
    if math.isnan(decibels):
        return "not finite"
    return "same" if decibels == PERFECT else f"{decibels:.0f}"


def measure(checkpoint: Checkpoint, audio: Path, questions: Iterable[ProbeRow], threads: int) -> Iterator[ArraySnr]:
    """Ask every number format what float32 is asked.

    Args:
        checkpoint: the model.
        audio: a spoken question.
        questions: rows of the table.
        threads: processor threads.

    Raises:
        Omni2Error: a graph cannot be built or run.
    """
    specs = graph_specs(checkpoint.config, checkpoint.modules)
    waveform = read_audio(audio, None, checkpoint.config.encoder.samples / WHISPER_SAMPLE_RATE, "truncate")
    with tempfile.TemporaryDirectory(prefix="omni2-precision-") as place:
        reference = _ExactGraphs(specs, Path(place), threads)
        material = Material(checkpoint, reference, waveform, SEED)
        for question in questions:
            expected = question.ask(material, reference)
            reference.clear()
            for variant in VARIANTS:
                changed = [specs[name] for name in question.changed if variant.fits(specs[name])]
                if not changed:
                    continue
                with tempfile.TemporaryDirectory(dir=place) as folder:
                    graphs = {
                        name: _load(replace(spec, name=name), variant, precision, Path(folder), threads)
                        for spec in changed
                        for name, precision in variant.precisions(spec).items()
                    }
                    found = question.ask(material, ChainMap(graphs, reference))
                for array in expected:
                    yield ArraySnr(question.name, array, variant.name, _snr(found[array], expected[array]))


class _ExactGraphs(dict[str, Graph]):
    """The graphs of the exact preset, each built when it is first asked for, and loaded until `clear`."""

    def __init__(self, specs: Mapping[str, GraphSpec], folder: Path, threads: int) -> None:
        super().__init__()
        self._specs = specs
        self._folder = folder
        self._threads = threads

    def __missing__(self, name: str) -> Graph:
        self[name] = OnnxRuntimeBackend(self._threads).load(self._path(name))
        return self[name]

    def _path(self, name: str) -> Path:
        path = self._folder / f"{name}.onnx"
        return path if path.is_file() else self._specs[name].write(self._folder, Precision.FP32)


def _load(spec: GraphSpec, variant: NumberFormat, precision: Precision, folder: Path, threads: int) -> Graph:
    path = spec.write(folder, precision, variant.numerics(spec))
    return NarrowBackend(threads, variant.emulated).load(path)


def _snr(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """In dB; NaN where a number is not finite."""
    return snr(found.astype(np.float64), expected.astype(np.float64)) if np.isfinite(found).all() else float("nan")


if __name__ == "__main__":
    typer.run(main)
