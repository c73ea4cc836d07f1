"""What every check works on: the engine's graphs, the checkpoint's tensors, and where the comparison goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from omni2_engine.backends.base.graph import Graph
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.model.config import ModelConfig
from omni2_engine.model.manifest import EngineDirectory
from omni2_export.checkpoint import Checkpoint
from omni2_export.checkpoint.tensors import under_prefix
from omni2_export.inspection import open_cut
from omni2_export.reference.build import load_module
from omni2_export.verify.rows import Comparison, Row, worst

SOURCE = "random input"
Floats = NDArray[np.float32]
Module = TypeVar("Module", bound=nn.Module)


@dataclass
class Subject:
    """An engine beside its checkpoint; `random` draws every input."""

    engine: EngineDirectory
    checkpoint: Checkpoint
    backend: OnnxRuntimeBackend
    comparison: Comparison
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def config(self) -> ModelConfig:
        """The model's dimensions."""
        return self.engine.manifest.model

    def graph(self, stage: str) -> Graph:
        """A stage's graph."""
        return self.backend.load(self.engine.graph(stage))

    def part(self, stage: str, inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
        """A cut of a stage's graph, see `inspection.cut`."""
        return open_cut(self.backend, self.engine.graph(stage), inputs, outputs)

    def module(self, make: Callable[[], Module], name: str, prefix: str) -> Module:
        """A torch module with the weights below a prefix of a checkpoint module."""
        return load_module(make, under_prefix(self.checkpoint.modules[name], prefix))

    def normal(self, *shape: int) -> Floats:
        """Random numbers, standard normal."""
        return self.random.standard_normal(shape, np.float32)

    def add(self, rows: Sequence[Row]) -> None:
        """Put the worst of several rows into the report."""
        self.comparison.report.rows.append(worst(rows))

    def judge(self, stage: str, array: str, found: Floats, expected: Tensor, **limit: float) -> Row:
        """A row on what one stage computes."""
        return self.comparison.judge(SOURCE, array, (stage,), found, expected.numpy(), **limit)


def tensor(array: Floats) -> Tensor:
    """An array as a tensor of its own."""
    return torch.from_numpy(np.array(array))
