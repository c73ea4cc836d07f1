"""Plans as stages of a build: each is made from its graph, which is written to a scratch folder and removed again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from omni2_engine.backends.tensorrt_library import TensorRt
from omni2_export.graphs.builder import GraphBuilder, Numerics
from omni2_export.graphs.weights import WeightWriter
from omni2_export.tensorrt.prepare import Prepared, prepare
from omni2_export.tensorrt.process import have_built
from omni2_export.tensorrt.shapes import make_profile
from omni2_export.tensorrt.specs import PlanSpec
from omni2_export.tensorrt.worker import Built, Order


class GraphScratch:
    """The one intermediate graph that plans are being built from; another takes its place.

    Plans of one stage for several architectures follow each other, so every graph is written once.

    Args:
        folder: a place of its own, made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: tuple[str, Path, Prepared] | None = None

    def graph(self, spec: PlanSpec, on_bytes: Callable[[int], None]) -> tuple[Path, Prepared]:
        """The file of a plan's graph, written if it is not the one held."""
        if self._held is None or self._held[0] != spec.stage:
            self.remove()
            self._folder.mkdir(parents=True)
            path = self._folder / f"{spec.stage}.onnx"
            with WeightWriter(path.with_suffix(".weights"), on_bytes) as writer:
                builder = GraphBuilder(spec.stage, writer, spec.numerics)
                spec.build(builder)
                builder.save(path)
            self._held = (spec.stage, path, prepare(path, spec.capacities))
        return self._held[1:]

    def remove(self) -> None:
        """Give its space back."""
        self._held = None
        shutil.rmtree(self._folder, ignore_errors=True)
