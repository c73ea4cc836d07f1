"""What tests of plans share: they are skipped where TensorRT is not installed (macOS, ARM)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from omni2_engine.backends.tensorrt.library import TensorRt, find_tensorrt
from omni2_engine.errors import BackendError
from omni2_export.graphs.builder import GraphBuilder, Numerics
from omni2_export.graphs.weights import WeightWriter
from omni2_export.tensorrt.network import Network

if TYPE_CHECKING:
    from omni2_bench.random_checkpoint import CheckpointPaths


@pytest.fixture(scope="session")
def library() -> TensorRt:
    try:
        return find_tensorrt()
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointPaths:
    """A checkpoint with as few layers as there can be of every kind: what a plan takes to build is counted in them."""
    from omni2_bench.random_checkpoint import PRESETS, write_checkpoint

    dimensions = PRESETS["tiny"].changed(
        encoder={"context": 500, "layers": 1},
        llm={"layers": 1},
        speech_lm={"layers": 1},
        flow_encoder={"blocks": 1, "up_blocks": 1},
        estimator={"width": 32, "mid_blocks": 1, "transformers": 1},
        vocoder={"base": 64, "resblock_kernels": (3,), "resblock_dilations": ((1,),)},
    )
    return write_checkpoint(tmp_path_factory.mktemp("small") / "checkpoint", dimensions, seed=1)


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
