"""Runs graphs of narrower floats on the CPU for stages that know float32: what goes in and out is cast, state included.

So graphs made for a GPU answer through the engine's own stages before there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from omni2_engine.backends.base import Array, Arrays
from omni2_engine.errors import BackendError
from omni2_export.rounded import rounded

NARROW = {"tensor(float16)": np.dtype(np.float16)}


class WidenedBackend:
    """ONNX Runtime on the CPU, for measuring and not for speed: state is copied in every call, and quantised weights
    are widened instead of their activations narrowed.

    Args:
        threads: per graph call.
        emulated: compute in float32 and round every result to the graph's type (see `rounded`), instead of with
            ONNX Runtime's own kernels, which there are for float16 alone, and some of which keep more digits.
    """

    name = "onnxruntime"
    width: int | None = 1

    def __init__(self, threads: int | None = None, emulated: bool = False) -> None:
        self._threads = threads or 0
        self._emulated = emulated

    def load(self, path: Path) -> WidenedGraph:
        """Load the graph at `path`; see `Backend.load`."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # the level beyond, of layouts, makes ONNX Runtime 1.32 crash on convolutions and norms of float16
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # otherwise activations of quantised layers are narrowed to int8, which a GPU does not do
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
        model = rounded(path).SerializeToString() if self._emulated else str(path)
        try:
            return WidenedGraph(ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]))
        except Exception as error:  # ONNX Runtime raises a family of its own exception types
            text = str(error).splitlines()[0][:300]
            raise BackendError(f"ONNX Runtime cannot load {path.name}: {text}", "emulate its type instead") from error


class WidenedGraph:
    """A loaded session; see `Graph`. All float arrays it takes and gives are float32."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._narrow = {value.name: NARROW[value.type] for value in session.get_inputs() if value.type in NARROW}
        self.inputs: Mapping[str, tuple[int | str | None, ...]] = {v.name: tuple(v.shape) for v in session.get_inputs()}
        self.outputs: Mapping[str, tuple[int | str | None, ...]] = {
            v.name: tuple(v.shape) for v in session.get_outputs()
        }

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with all inputs given; see `Graph.run`."""
        fed = {name: array.astype(self._narrow.get(name, array.dtype)) for name, array in inputs.items()}
        results = zip(self.outputs, self._session.run(None, fed), strict=True)
        return {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in results}

    def bind(self, state: Arrays, fixed: Arrays | None = None) -> BoundWidenedGraph:
        """Bind memory once; see `Graph.bind`."""
        return BoundWidenedGraph(self, dict(state), dict(fixed or {}))


class BoundWidenedGraph:
    """A graph that reads state from float32 arrays and writes it back, which loses nothing; see `BoundGraph`."""

    def __init__(self, graph: WidenedGraph, state: dict[str, Array], fixed: dict[str, Array]) -> None:
        self._graph = graph
        self._state = state
        self._fixed = fixed

    def move(self, state: Arrays) -> None:
        """See `BoundGraph.move`."""
        self._state |= state

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """See `BoundGraph.run`."""
        outputs = self._graph.run({**inputs, **self._state})
        for name, memory in self._state.items():
            memory[...] = outputs.pop(f"new_{name}")
        for name, memory in self._fixed.items():
            memory[...] = outputs[name]
        return outputs | self._fixed
