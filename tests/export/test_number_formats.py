"""Graphs in every number format: their types, what they take and give, and their islands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine.errors import SettingError
from omni2_export.build.graphs import GraphSpec, graph_specs
from omni2_export.build.precision import (
    CHOICES,
    COMPUTE,
    GPU,
    GPU_PRESETS,
    Precisions,
    device_floor,
    parse_precision,
)
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.graphs.attention import attend
from omni2_export.graphs.builder import BORDER, FLOAT, ISLAND, GraphBuilder, Numerics
from omni2_export.graphs.linear import Precision
from omni2_export.graphs.weights import WeightWriter
from omni2_export.narrow_backend import NarrowBackend

FLOAT16, BFLOAT16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16
SIZES = {"capacity": 512, "up_capacity": 1024}
STATE = ("keys", "values", "context")


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: CheckpointPaths) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)


@pytest.fixture(scope="module")
def specs(checkpoint: Checkpoint) -> dict[str, GraphSpec]:
    return graph_specs(checkpoint.config, checkpoint.modules, positions=600)


def storages() -> list[tuple[str, str]]:
    """Every stage with every storage a GPU offers."""
    return [(stage, storage) for stage, offered in CHOICES[GPU].items() for storage in offered]


# -- what a graph says of itself ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, ml_dtypes.float8_e4m3fn])
def test_quantised_values_are_of_their_zero_points_type(kind: type, tmp_path: Path) -> None:
    with WeightWriter(tmp_path / "graph.weights") as writer:
        g = GraphBuilder("graph", writer)
        zero = g.constant(np.zeros((), kind))
        codes = g.op("QuantizeLinear", g.input("x", FLOAT, ["n"]), g.constant(0.5), zero)
        assert g.type_of(codes) == g.type_of(zero) == ir.DataType.from_numpy(np.dtype(kind))


@pytest.mark.parametrize(("stage", "storage"), storages())
def test_types_agree_everywhere(specs: dict[str, GraphSpec], stage: str, storage: str, tmp_path: Path) -> None:
    """ONNX's own inference finds the types, strictly: a missing cast is an error."""
    precisions = Precisions("custom", {stage: storage}, GPU)
    for spec in specs.values():
        if spec.stage != stage:
            continue
        numerics = precisions.numerics(stage)
        path = spec.write(tmp_path, precisions.of(stage) if spec.quantised else Precision.FP32, numerics, SIZES)
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        for value in (*model.graph.input, *model.graph.output):
            kind = value.type.tensor_type.elem_type
            if any(word in value.name for word in STATE):
                assert kind == COMPUTE[storage.partition("+")[0]].value, value.name
            else:
                assert kind in (FLOAT.value, onnx.TensorProto.INT64, onnx.TensorProto.BOOL), value.name


@pytest.mark.parametrize("compute", [FLOAT16, BFLOAT16])
def test_weights_are_stored_in_the_type_and_no_float64_is_left(
    specs: dict[str, GraphSpec], compute: ir.DataType, tmp_path: Path
) -> None:
    numerics = Numerics(compute, doubles=False, device=True)
    for spec in specs.values():
        model = onnx.load(spec.write(tmp_path, Precision.FP32, numerics, SIZES), load_external_data=False)
        kinds = {tensor.data_type for tensor in model.graph.initializer}
        assert onnx.TensorProto.DOUBLE not in kinds, spec.name
        assert not any(attribute.i == onnx.TensorProto.DOUBLE for node in casts(model) for attribute in node.attribute)
        if spec.module and spec.name != "flow_conditions":
            weights = {t.data_type for t in model.graph.initializer if len(t.dims) >= 2 and "weight" in t.name}
            assert compute.value in weights, spec.name


def test_float32_graphs_have_neither_casts_nor_marks(specs: dict[str, GraphSpec], tmp_path: Path) -> None:
    for name in ("encoder", "llm", "fusion", "flow_step"):
        model = onnx.load(specs[name].write(tmp_path, Precision.FP32), load_external_data=False)
        assert casts(model) == []
        assert not any(node.metadata_props for node in model.graph.node)


def test_every_cast_between_floats_is_marked_as_the_border_of_an_island(
    specs: dict[str, GraphSpec], tmp_path: Path
) -> None:
    for name in ("encoder", "llm", "flow_encoder", "flow_step", "vocoder"):
        path = specs[name].write(tmp_path, Precision.FP32, Numerics(FLOAT16, doubles=False))
        model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
        values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        floats = {FLOAT.value, FLOAT16.value, BFLOAT16.value}
        marked = 0
        for node in casts(model):
            notes = {note.key: note.value for note in node.metadata_props}
            between = types[node.input[0]] in floats and node.attribute[0].i in floats
            assert (notes.get(ISLAND) == BORDER) == between, (name, node.name)
            marked += between
        assert marked, name


def casts(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Cast"]


# -- the builder -------------------------------------------------------------------------------------------------------


def build(folder: Path, numerics: Numerics, lay: Callable[[GraphBuilder], None]) -> Path:
    with WeightWriter(folder / "graph.weights") as writer:
        g = GraphBuilder("graph", writer, numerics)
        lay(g)
        g.save(folder / "graph.onnx")
    return folder / "graph.onnx"


def test_islands_keep_what_float16_cannot_hold(tmp_path: Path) -> None:
    def lay(g: GraphBuilder) -> None:
        x = g.input("x", FLOAT, [4])
        large = g.residual(x, x)  # 2x, float32
        with g.precise():
            inside = g.mul(large, 0.25)
        g.output(inside, "inside", FLOAT, [4])
        g.output(g.mul(g.mul(x, 2.0), 0.25), "outside", FLOAT, [4])

    x = np.array([1.0, 60_000.0, -40_000.0, 1 + 2**-20], np.float32)
    graph = NarrowBackend(1, emulated=True).load(build(tmp_path, Numerics(FLOAT16), lay))
    outputs = graph.run({"x": x})
    assert (outputs["inside"] == x / 2).all()
    assert outputs["outside"][0] == 0.5 and np.isinf(outputs["outside"][1]) and outputs["outside"][3] == 0.5


def test_a_value_is_cast_once_however_often_it_is_used(tmp_path: Path) -> None:
    def lay(g: GraphBuilder) -> None:
        x = g.input("x", FLOAT, [4])
        total = g.add(g.mul(x, x), g.mul(x, 3.0))
        g.output(total, "y", FLOAT, [4])

    model = onnx.load(build(tmp_path, Numerics(FLOAT16), lay))
    assert [node.op_type for node in model.graph.node] == ["Cast", "Mul", "Mul", "Add", "Cast"]


def test_moving_values_keeps_their_type(tmp_path: Path) -> None:
    def lay(g: GraphBuilder) -> None:
        x = g.input("x", FLOAT, [2, 3])
        moved = g.slice(g.reshape(g.transpose(x, 1, 0), [-1]), 1, 5, axis=0)
        assert g.type_of(moved) == FLOAT
        narrow = g.mul(x, 1.0)
        assert g.type_of(narrow) == FLOAT16 and g.type_of(g.concat(narrow, x, axis=0)) == FLOAT16
        assert g.type_of(g.size(x, 0)) == ir.DataType.INT64
        g.output(moved, "y", FLOAT, [4])

    x = np.arange(6, dtype=np.float32).reshape(2, 3) / 3
    (y,) = ort.InferenceSession(build(tmp_path, Numerics(FLOAT16), lay)).run(None, {"x": x})
    assert (y == x.T.ravel()[1:5]).all()


@pytest.mark.parametrize(("width", "padded"), [(12, 16), (20, 24), (16, 16)])
def test_heads_of_a_width_that_half_types_lack_are_padded(tmp_path: Path, width: int, padded: int) -> None:
    def lay(g: GraphBuilder) -> None:
        heads = [g.mul(g.input(name, FLOAT, [1, 2, 3, width]), 1.0) for name in "qkv"]
        mask = g.input("mask", ir.DataType.BOOL, [1, 1, 3, 3])
        g.output(attend(g, heads[0], heads[1], heads[2], mask, width, scale=0.3), "y", FLOAT, [1, 2, 3, width])

    random = np.random.default_rng(width)
    inputs = {name: random.standard_normal((1, 2, 3, width), np.float32) for name in "qkv"}
    inputs["mask"] = np.tril(np.ones((1, 1, 3, 3), np.bool_))
    found = {}
    for device in (False, True):
        path = build(tmp_path, Numerics(FLOAT16, device=device), lay)
        model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
        shapes = {v.name: v.type.tensor_type.shape.dim for v in (*model.graph.value_info, *model.graph.input)}
        (node,) = [node for node in model.graph.node if node.op_type == "Attention"]
        assert {shapes[name][3].dim_value for name in node.input[:3]} == {padded if device else width}
        found[device] = NarrowBackend(1).load(path).run(inputs)["y"]
    assert found[True].shape == found[False].shape == (1, 2, 3, width)
    assert np.abs(found[True] - found[False]).max() < 2e-3


def test_weights_beyond_the_range_of_float16_are_refused(tmp_path: Path) -> None:
    def lay(g: GraphBuilder) -> None:
        g.weight("wide", np.array([1.0, 7e4], np.float32))

    with pytest.raises(SettingError, match="wide holds values beyond float16's range"):
        build(tmp_path, Numerics(FLOAT16), lay)
    build(tmp_path, Numerics(BFLOAT16), lay)


def test_sizes_become_numbers(specs: dict[str, GraphSpec], tmp_path: Path) -> None:
    path = specs["llm"].write(tmp_path, Precision.FP32, Numerics(FLOAT16), {"capacity": 64, "B": 3})
    for value in onnx.load(path, load_external_data=False).graph.input:
        shape = [size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim]
        assert shape[0] == 3, value.name
        assert "keys" not in value.name or shape[2] == 64


# -- precisions --------------------------------------------------------------------------------------------------------


def test_precisions_for_a_gpu() -> None:
    assert parse_precision("fast", GPU) == GPU_PRESETS["fast"]
    changed = parse_precision("balanced,llm=int4,flow=fp32,encoder=fp16+int8", GPU)
    assert changed.preset == "custom"
    assert changed.stages == {
        **GPU_PRESETS["balanced"].stages,
        "llm": "bf16+int4",
        "flow": "fp32",
        "encoder": "fp16+int8",
    }
    assert changed.of("llm") is Precision.INT4 and changed.numerics("llm").compute == BFLOAT16
    assert changed.of("encoder") is Precision.INT8 and changed.numerics("encoder").compute == FLOAT16
    assert changed.of("flow") is Precision.FP32 and changed.numerics("log_mel") == changed.numerics("flow")
    assert not changed.numerics("vocoder").doubles and changed.numerics("vocoder").device
    assert parse_precision("fast").numerics("llm") == Numerics()


@pytest.mark.parametrize(
    "text", ["quick", "fast,vocoder=bf16", "exact,llm=int4", "fast,flow=fp16+int8", "fast,table=fp16"]
)
def test_precisions_a_gpu_does_not_have(text: str) -> None:
    with pytest.raises(SettingError):
        parse_precision(text, GPU)


def test_every_storage_on_offer_can_be_asked_for() -> None:
    for stage, storage in storages():
        precisions = parse_precision(f"exact,{stage}={storage}", GPU)
        assert precisions.stages[stage] == storage
        assert precisions.numerics(stage).compute == COMPUTE[storage.partition("+")[0]]


def test_every_plan_has_a_floor_and_with_less_a_lower_one(specs: dict[str, GraphSpec]) -> None:
    for stage, storage in storages():
        compute, _, weights = storage.partition("+")
        for spec in specs.values():
            if spec.stage != stage:
                continue
            floor = device_floor(spec.name, storage if spec.quantised else compute)
            assert 0 < floor <= device_floor(spec.name, "fp32")
            if weights:
                assert floor < device_floor(spec.name, compute)
    assert device_floor("flow_step", "fp16") >= 40


def test_rotary_tables_keep_their_digits(specs: dict[str, GraphSpec], tmp_path: Path) -> None:
    """Angles of thousands of positions have more digits than bfloat16."""
    precisions = Precisions("custom", {"llm": "bf16"}, GPU)
    model = onnx.load(specs["llm"].write(tmp_path, Precision.FP32, precisions.numerics("llm"), SIZES))
    tables = [tensor for tensor in model.graph.initializer if tensor.name.startswith("rotary_")]
    assert {tensor.data_type for tensor in tables} == {FLOAT.value} and len(tables) == 2
