"""Builds every graph in every number format, asks all of them the same, and writes what is left of the signal."""

from __future__ import annotations

import json
import tempfile
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_bench.common.machine import describe
from omni2_bench.common.models import Model
from omni2_bench.common.results import Say
from omni2_bench.lab.precision_page import page
from omni2_bench.lab.probes import QUESTIONS, Material, Question
from omni2_bench.lab.variants import VARIANTS, Variant
from omni2_engine.audio.source import read_audio
from omni2_engine.backends.base import Graph
from omni2_engine.backends.onnxruntime import OnnxRuntimeBackend
from omni2_engine.config import WHISPER_SAMPLE_RATE
from omni2_engine.errors import SettingError
from omni2_export.build.graphs import GraphSpec, graph_specs
from omni2_export.calibration import RangeBackend, Ranges
from omni2_export.checkpoint import Checkpoint
from omni2_export.graphs.linear import Precision
from omni2_export.narrow_backend import NarrowBackend
from omni2_export.verify.rows import snr

SCHEMA_VERSION = 1
MEASURED, CALIBRATED = 0, 1  # seeds: what float8 is calibrated with is not what it is measured with


@dataclass(frozen=True)
class PrecisionPlan:
    """What is measured.

    Args:
        audio: a spoken question.
        threads: processor threads.
        rows: of the table; all if empty.

    Raises:
        SettingError: the table has no such row.
    """

    audio: Path
    threads: int
    rows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = [question.name for question in QUESTIONS]
        for row in self.rows:
            if row not in known:
                raise SettingError(f"the table has no row {row!r}", f"use some of {', '.join(known)}")


@dataclass(frozen=True)
class Finding:
    """What one array of a row keeps in one column: `snr` in dB, NaN where a number is not finite."""

    row: str
    array: str
    variant: str
    snr: float


def run(plan: PrecisionPlan, model: Model, out: Path, say: Say) -> str:
    """Measure, write `precision.json` and `precision.md`.

    Args:
        plan: what to measure.
        model: the checkpoint.
        out: directory of the results.
        say: told what happens.

    Returns:
        The page to read.

    Raises:
        Omni2Error: a graph cannot be built or run.
    """
    findings = list(measure(plan, model.open(), say))
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": model.name,
        "machine": describe(plan.threads),
        "findings": [finding.__dict__ for finding in findings],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "precision.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    text = page(record)
    (out / "precision.md").write_text(text, encoding="utf-8")
    return text


def measure(plan: PrecisionPlan, checkpoint: Checkpoint, say: Say) -> Iterator[Finding]:
    """Ask every question of every variant; see `run`."""
    specs = graph_specs(checkpoint.config, checkpoint.modules)
    audio = read_audio(plan.audio, None, checkpoint.config.encoder.samples / WHISPER_SAMPLE_RATE, "truncate")
    with tempfile.TemporaryDirectory(prefix="omni2-precision-") as place:
        reference = _Reference(specs, Path(place), plan.threads)
        material = Material(checkpoint, reference, audio, MEASURED)
        for question in QUESTIONS:
            if plan.rows and question.name not in plan.rows:
                continue
            expected = question.ask(material, reference)
            reference.clear()
            for variant in VARIANTS:
                changed = [specs[name] for name in question.changed if variant.fits(specs[name])]
                if not changed:
                    continue
                say(f"{question.name}: {variant.name} …")
                ranges: Ranges = {}
                if variant.precision is Precision.FP8:
                    ranges = reference.ranges(question, Material(checkpoint, reference, audio, CALIBRATED))
                with tempfile.TemporaryDirectory(dir=place) as folder:
                    graphs = {spec.name: _load(spec, variant, ranges, Path(folder), plan.threads) for spec in changed}
                    found = question.ask(material, ChainMap(graphs, reference))
                for array in expected:
                    yield Finding(question.name, array, variant.name, _snr(found[array], expected[array]))


class _Reference(dict[str, Graph]):
    """The graphs of the exact preset, each built when it is first asked for, and loaded until `clear`."""

    def __init__(self, specs: Mapping[str, GraphSpec], folder: Path, threads: int) -> None:
        super().__init__()
        self._specs = specs
        self._folder = folder
        self._threads = threads

    def __missing__(self, name: str) -> Graph:
        self[name] = OnnxRuntimeBackend(self._threads).load(self._path(name))
        return self[name]

    def ranges(self, question: Question, material: Material) -> Ranges:
        """What a question's graphs read when it is asked with some material."""
        backend = RangeBackend(self._threads)
        watched: dict[str, Graph] = {name: backend.load(self._path(name)) for name in question.changed}
        question.ask(material, ChainMap(watched, self))
        return backend.ranges

    def _path(self, name: str) -> Path:
        path = self._folder / f"{name}.onnx"
        return path if path.is_file() else self._specs[name].write(self._folder, Precision.FP32)


def _load(spec: GraphSpec, variant: Variant, ranges: Ranges, folder: Path, threads: int) -> Graph:
    precision = variant.precision if spec.quantised else Precision.FP32
    path = spec.write(folder, precision, variant.numerics(spec.name, ranges))
    return NarrowBackend(threads, variant.emulated).load(path)


def _snr(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """In dB; NaN where a number is not finite."""
    return snr(found.astype(np.float64), expected.astype(np.float64)) if np.isfinite(found).all() else float("nan")
