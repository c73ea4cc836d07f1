"""What tests of plans share: they are skipped where TensorRT is not installed (macOS, ARM)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni2_engine.backends.tensorrt_library import TensorRt, find_tensorrt
from omni2_engine.errors import BackendError
from omni2_export.graphs.builder import GraphBuilder, Numerics
from omni2_export.graphs.weights import WeightWriter
from omni2_export.tensorrt.network import Network


@pytest.fixture(scope="session")
def library() -> TensorRt:
    try:
        return find_tensorrt()
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture
def write_graph(tmp_path: Path) -> Callable[..., Path]:
    """Writes a graph that a function adds to a builder; returns its file."""

    def write(build: Callable[[GraphBuilder], Any], numerics: Numerics | None = None) -> Path:
        path = tmp_path / "graph.onnx"
        with WeightWriter(path.with_suffix(".weights")) as writer:
            g = GraphBuilder("graph", writer, numerics)
            build(g)
            g.save(path)
        return path

    return write


@pytest.fixture
def parse(library: TensorRt, write_graph: Callable[..., Path]) -> Callable[..., Network]:
    """`write_graph`, and the network TensorRT makes of it."""
    return lambda build, numerics=None: Network(library, write_graph(build, numerics))
