"""Runs graphs of narrower floats on the CPU for what they compute, before there is a GPU that runs them fast."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.backends.onnxruntime.graph import OnnxRuntimeGraph
from omni2_export.rounded import rounded


class NarrowBackend(OnnxRuntimeBackend):
    """ONNX Runtime on the CPU, computing what a GPU would: quantised weights are widened, and not their activations
    narrowed.

    Args:
        threads: see `OnnxRuntimeBackend`.
        emulated: compute in float32 and round every result to the graph's type (see `rounded`), instead of with
            ONNX Runtime's own kernels, which there are for float16 alone, and some of which keep more digits.
    """

    matmul_accuracy = "0"

    def __init__(self, threads: int | None = None, emulated: bool = False) -> None:
        super().__init__(threads)
        self._emulated = emulated

    def load(self, path: Path) -> OnnxRuntimeGraph:
        """Load the graph at `path`; see `OnnxRuntimeBackend.load`."""
        if not self._emulated:
            return super().load(path)
        return self.load_bytes(rounded(path).SerializeToString(), path.parent, f"an emulation of {path.name}")

    def options(self) -> ort.SessionOptions:
        """See `OnnxRuntimeBackend.options`."""
        options = super().options()
        # the level beyond, of layouts, makes ONNX Runtime 1.32 crash on convolutions and norms of float16
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        return options
