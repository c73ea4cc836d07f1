"""A small stage with all that stages have, as a plan of the stand-in TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from omni2_engine._core import CudaDevice
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.backends.tensorrt.graph import TensorRTGraph
from omni2_engine.backends.tensorrt.library import TensorRt
from omni2_engine.backends.tensorrt.plan import TensorRTPlan

from ..stand_ins.tensorrt import FakeTensorRt, write_plan

CAPACITY = 16
RANGES = {"B": (1, 2, 4), "S": (1, 1, 8)}


@pytest.fixture
def device(fake_cuda: Any) -> CudaDevice:
    return CudaDevice(fake_cuda.path)


@pytest.fixture
def stage_stream(device: CudaDevice) -> StageStream:
    return StageStream(device)


@pytest.fixture(scope="session")
def stage_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x (B, 2, S, 4), keys_0 (B, 2, 16, 4), write (B), contexts (1, 4) → doubled 2·x, logits Σ keys (B, 4), new_keys_0
    with x at `write`, new_contexts = contexts/2 + Σ x."""
    return write_stage(tmp_path_factory.mktemp("stage") / "stage.onnx")


def write_stage(path: Path, in_place: bool = True) -> Path:
    """The graph of `stage_graph`; its cache can be made one that no call may update where it is."""
    shape = ["B", 2, CAPACITY, 4]
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("TensorScatter", ["keys_0", "x", "write"], ["scattered"], axis=2),
        helper.make_node("Mul", ["scattered", "one"], ["copied"]),
        helper.make_node("ReduceSum", ["scattered", "rows"], ["logits"], keepdims=0),
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("ReduceSum", ["x", "all"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["contexts", "half"], ["faded"]),
        helper.make_node("Add", ["faded", "sum"], ["new_contexts"]),
    ]
    cache = "scattered" if in_place else "copied"
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = ["new_keys_0" if name == cache else name for name in names]
    numbers = {"one": 1.0, "two": 2.0, "half": 0.5}
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [number]) for name, number in numbers.items()]
    constants += [helper.make_tensor("rows", TensorProto.INT64, [2], [1, 2])]
    constants += [helper.make_tensor("all", TensorProto.INT64, [3], [0, 1, 2])]
    graph = helper.make_graph(
        nodes,
        "stage",
        [
            value("x", TensorProto.FLOAT, ["B", 2, "S", 4]),
            value("write", TensorProto.INT64, ["B"]),
            value("contexts", TensorProto.FLOAT, [1, 4]),
            value("keys_0", TensorProto.FLOAT, shape),
        ],
        [
            value("doubled", TensorProto.FLOAT, ["B", 2, "S", 4]),
            value("logits", TensorProto.FLOAT, ["B", 4]),
            value("new_contexts", TensorProto.FLOAT, [1, 4]),
            value("new_keys_0", TensorProto.FLOAT, shape),
        ],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10), path)
    return path


@pytest.fixture
def open_plan(library: TensorRt, fake_tensorrt: FakeTensorRt, tmp_path: Path) -> Callable[[Path], TensorRTPlan]:
    """A graph's plan, deserialized."""

    def opened(graph: Path) -> TensorRTPlan:
        path = tmp_path / "stage.plan"
        write_plan(path, graph, RANGES)
        runtime = fake_tensorrt.Runtime(library.logger)
        return TensorRTPlan(library, runtime.deserialize_cuda_engine(path.read_bytes()), "stage")

    return opened


@pytest.fixture
def make_graph(
    open_plan: Callable[[Path], TensorRTPlan], stage_graph: Path, stage_stream: StageStream
) -> Callable[..., TensorRTGraph]:
    """The stage's graph on the stand-ins."""

    def make(cuda_graphs: bool = True) -> TensorRTGraph:
        return TensorRTGraph(open_plan(stage_graph), stage_stream, cuda_graphs)

    return make
