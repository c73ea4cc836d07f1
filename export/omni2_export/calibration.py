"""Finds the range of what every linear layer reads while an engine answers recordings: what float8 scales are made of.

The engine's float32 graphs run as always, with one more output per layer: the largest magnitude of its input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from omni2_engine import Engine
from omni2_engine.audio.source import AudioInput
from omni2_engine.backends.base import Array, Graph, Shape
from omni2_engine.backends.onnxruntime import OnnxRuntimeBackend
from omni2_engine.errors import Omni2Error, SettingError
from omni2_engine.file_content import read_text
from omni2_export.inspection import Overheard, read_graph

WEIGHT = ".weight"  # a linear layer multiplies with an initializer called after its label
Ranges = dict[str, dict[str, float]]  # graph → label of a layer → largest magnitude of what it reads


def calibrate(engine: Path, recordings: Sequence[AudioInput], threads: int | None = None) -> Ranges:
    """Answer recordings and note the ranges on the way.

    Args:
        engine: directory of an engine whose language models and encoder are float32.
        recordings: spoken questions of the kind the model is for.
        threads: see `Engine.load`.

    Returns:
        For every graph the `ranges` of its `Numerics`.

    Raises:
        SettingError: there are no recordings, or the engine is quantised.
        AudioError: a recording cannot be used.
        EngineDirectoryError: the engine is missing or damaged.
    """
    if not recordings:
        raise SettingError("there is nothing to calibrate with", "give recordings of spoken questions")
    backend = RangeBackend(threads)
    loaded = Engine.load(engine, backend=backend, warm_up=False)
    quantised = [stage for stage, storage in loaded.directory.manifest.precision.items() if storage != "fp32"]
    if quantised:
        raise SettingError(f"{engine} has quantised stages: {', '.join(quantised)}", "build it with --precision exact")
    for recording in recordings:
        for _ in loaded.stream(recording):
            pass
    return backend.ranges


def write_ranges(path: Path, ranges: Ranges) -> None:
    """Keep ranges for later builds.

    Raises:
        Omni2Error: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(ranges, indent=1), encoding="utf-8")
    except OSError as error:
        raise Omni2Error(f"cannot write {path}: {error.strerror}", "choose another place with -o") from error


def read_ranges(path: Path) -> Ranges:
    """What `write_ranges` wrote.

    Raises:
        SettingError: the file is something else.
    """
    remedy = "make one with `omni2-engine calibrate`"
    try:
        found = json.loads(read_text(path))
        return {graph: {label: float(size) for label, size in sizes.items()} for graph, sizes in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingError(f"{path} holds no ranges: {error}", remedy) from error


class RangeBackend(OnnxRuntimeBackend):
    """ONNX Runtime with graphs that note the ranges of their linear layers' inputs.

    Args:
        threads: see `OnnxRuntimeBackend`.

    Attributes:
        ranges: of all runs so far.
    """

    def __init__(self, threads: int | None = None) -> None:
        super().__init__(threads)
        self.ranges: Ranges = {}

    def load(self, path: Path) -> Graph:  # type: ignore[override]
        """Load the graph at `path`; see `Backend.load`."""
        model = read_graph(path)
        outputs = _watch(model.graph)
        noted = self.ranges.setdefault(path.stem, dict.fromkeys(outputs.values(), 0.0))
        graph = self.load_bytes(model.SerializeToString(), path.parent, path.name)
        return _Watched(graph, outputs, noted)


def _watch(graph: onnx.GraphProto) -> dict[str, str]:
    """Add an output max |x| for every layer x·W: output → label."""
    weights = {tensor.name for tensor in graph.initializer}
    outputs = {}
    for node in list(graph.node):
        weight = node.input[1] if node.op_type == "MatMul" else ""
        if weight in weights and weight.endswith(WEIGHT):
            label = weight.removesuffix(WEIGHT)
            name = f"range of {label}"
            graph.node.append(onnx.helper.make_node("Abs", [node.input[0]], [f"|{name}|"]))
            graph.node.append(onnx.helper.make_node("ReduceMax", [f"|{name}|"], [name], keepdims=0))
            graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []))
            outputs[name] = label
    return outputs


class _Watched(Overheard):
    """A graph whose further outputs are noted and not given out."""

    def __init__(self, graph: Graph, watched: Mapping[str, str], noted: dict[str, float]) -> None:
        super().__init__(graph)
        self._watched = watched
        self._noted = noted

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """See `Graph`."""
        return {name: shape for name, shape in super().outputs.items() if name not in self._watched}

    def hear(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """Note ranges and hand on the rest."""
        for name, label in self._watched.items():
            self._noted[label] = float(np.maximum(self._noted[label], outputs.pop(name)))
        return outputs
