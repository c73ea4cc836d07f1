"""The kernels that TensorRT's builder makes of a network: counted, and refused where they write weights out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from omni2_bench.lab.random_weights import StandInGraph, random_modules
from omni2_bench.random_checkpoint import PRESETS
from omni2_engine.backends.tensorrt.library import TensorRt
from omni2_engine.errors import Omni2Error
from omni2_export.build.precision import GPU, parse_precision
from omni2_export.graphs.builder import FLOAT, GraphBuilder, Numerics
from omni2_export.tensorrt.audit import ExpectedNetwork
from omni2_export.tensorrt.facts import read_facts
from omni2_export.tensorrt.lowered import Lowered, read_listing
from omni2_export.tensorrt.plans import plan_specs
from omni2_export.tensorrt.process import have_built
from omni2_export.tensorrt.shapes import Range, Sizes, Space
from omni2_export.tensorrt.worker import Built, Order

WIDTH = 1024
LISTING = """Layers:
Name: __mye1_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName:
Name: __myl_TranSlic_myl0_1, LayerType: kgen, Inputs: [ { Name: new_keys_0, Dimensions: [-1,2,64,8] }], Constants: [], \
Outputs: [ { Name: a, Dimensions: [-1,2,-1,8] }], TacticName:
Name: __myl_MoveReshTran_myl0_2, LayerType: kgen, Inputs: [ { Name: a, Dimensions: [-1,2,-1,8] }], Constants: [], \
Outputs: [ { Name: b, Dimensions: [-1,-1,16] }], TacticName:
Name: __myl_ReplCastMulCast_myl0_3, LayerType: kgen, Inputs: [], Constants: [ { Name: w, Dimensions: [1024,1024] }], \
Outputs: [ { Name: c, Dimensions: [1024,1024] }], TacticName:
Name: MatMul_4_myl0_4, LayerType: gemm, Inputs: [ { Name: b, Dimensions: [-1,1024] }], Constants: [], Outputs: [ ]
Name: MatMul_5_myl0_5, LayerType: gemm, Inputs: [ { Name: d, Dimensions: [-1,64], Datatype: FP8 }], \
Constants: [ { Name: v, Dimensions: [64,64], Datatype: FP8 }], Outputs: [ { Name: e, Dimensions: [-1,64] }]
Name: Fc_myl0_6, LayerType: runtime_fusion, Inputs: [ { Name: e, Dimensions: [-1,64], Datatype: Half }], \
Constants: [ { Name: v, Dimensions: [64,64], Datatype: FP8 }], Outputs: [ { Name: f, Dimensions: [-1,64] }]
"""


def test_a_listing_is_counted() -> None:
    found = read_listing(LISTING)
    kinds = {"kgen": 3, "gemm": 2, "runtime_fusion": 1}
    assert found == Lowered(kinds, 2, 1, ("__myl_ReplCastMulCast_myl0_3",), fp8=1) and found.kernels == 6


@pytest.fixture
def order(library: TensorRt, write_graph: Callable[..., Path], tmp_path: Path) -> Callable[..., Order]:
    """An order of one product with weights in int8, in blocks of a number of inputs; None: a scale per channel."""

    def make(block: int | None) -> Order:
        def build(g: GraphBuilder) -> None:
            rng = np.random.default_rng(0)
            codes = rng.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8)
            weight = g.stored("w", ir.DataType.INT8, (WIDTH, WIDTH), lambda view: np.copyto(view, codes))
            scales = rng.uniform(1e-3, 1e-2, (WIDTH // block, WIDTH) if block else WIDTH).astype(np.float32)
            layout = {"axis": 0, "block_size": block} if block else {"axis": 1}
            plain = g.op("DequantizeLinear", weight, g.weight("s", scales), **layout)
            g.output(g.op("MatMul", g.input("x", g.compute, ["n", WIDTH]), plain), "y", FLOAT, ["n", WIDTH])

        graph = write_graph(build, Numerics(ir.DataType.BFLOAT16, doubles=False, device=True))
        facts = read_facts(graph)
        profile = Space({}, {"n": Range(1, 1, 8)}).profile(facts.inputs)
        expected = ExpectedNetwork(compute="BF16", islands=facts.islands)
        return Order(str(graph), str(tmp_path / "plan"), "sm89", profile, expected, str(tmp_path / "timings"))

    return make


def test_weights_that_are_written_out_in_every_call_are_refused(order: Callable[..., Order]) -> None:
    with pytest.raises(Omni2Error, match="write 1 matrices of weights to working memory in every call"):
        have_built(order(128))
    assert have_built(order(None)).lowered.expanded == ()


def fp8_product(g: GraphBuilder, factor: ir.Value, scale: ir.Value) -> None:
    """A product with weights in fp8, of numbers that were quantised with a scale."""
    zero = g.constant(np.zeros((), ml_dtypes.float8_e4m3fn))
    codes = g.op("QuantizeLinear", factor, scale, zero)
    values = np.random.default_rng(0).uniform(-400, 400, (WIDTH, WIDTH)).astype(ml_dtypes.float8_e4m3fn)
    weight = g.stored("w", ir.DataType.FLOAT8E4M3FN, (WIDTH, WIDTH), lambda view: np.copyto(view, values))
    plain = g.op("DequantizeLinear", weight, g.weight("s", np.full(WIDTH, 1e-3, np.float32)), axis=1)
    g.output(g.op("MatMul", g.op("DequantizeLinear", codes, scale), plain), "y", FLOAT, ["n", WIDTH])


@pytest.mark.parametrize("fixed", [True, False])
def test_products_of_fp8_that_would_be_widened_are_refused(
    fixed: bool, library: TensorRt, write_graph: Callable[..., Path], tmp_path: Path
) -> None:
    """As where the scale is not known before the call."""

    def build(g: GraphBuilder) -> None:
        x = g.input("x", g.compute, ["n", WIDTH])
        largest = g.op("ReduceMax", g.op("Abs", x), keepdims=0)
        fp8_product(g, x, g.constant(1 / 448) if fixed else g.mul(largest, 1 / 448))

    graph = write_graph(build, Numerics(ir.DataType.FLOAT16, doubles=False, device=True))
    facts = read_facts(graph)
    expected = ExpectedNetwork(compute="HALF", islands=facts.islands, fp8=facts.fp8)
    profile = Space({}, {"n": Range(1, 1, 8)}).profile(facts.inputs)
    order = Order(str(graph), str(tmp_path / "plan"), "sm89", profile, expected, str(tmp_path / "timings"))
    if fixed:
        assert have_built(order).lowered.fp8 == 1
    else:
        with pytest.raises(Omni2Error, match="compute 1 of its 1 products of fp8 in another type"):
            have_built(order)


def built(tmp_path: Path, stage: str, layers: int, precision: str) -> Built:
    module = "encoder" if stage == "encoder_tail" else stage
    dimensions = PRESETS["tiny"].changed(**({module: {"layers": layers}} if layers else {}))
    config, modules = random_modules(dimensions)
    specs = plan_specs(config, modules, parse_precision(precision, GPU).loaded_with("tail"), Sizes(2))
    spec = next(spec for spec in specs if spec.stage == stage)
    graph = StandInGraph(**vars(spec.graph)).write(tmp_path, spec.storage, spec.numerics, spec.space.capacities)
    facts = read_facts(graph)
    expected = replace(spec.expected, islands=facts.islands, fp8=facts.fp8)
    profile = spec.space.profile(facts.inputs)
    return have_built(Order(str(graph), str(tmp_path / "plan"), "sm89", profile, expected, str(tmp_path / "t")))


def test_every_layer_of_a_language_model_adds_as_many_kernels(tmp_path: Path, library: TensorRt) -> None:
    one, two, three = (built(tmp_path, "llm", layers, "balanced").lowered for layers in (1, 2, 3))
    assert three.kernels - two.kernels == two.kernels - one.kernels == 11
    assert two.cache_copies == 2  # what is visible, in both layers
    assert not three.expanded


@pytest.mark.parametrize(("stage", "kernels"), [("encoder", 10), ("llm", 11)])
def test_all_products_of_a_layer_are_fp8_and_no_kernel_is_added(
    stage: str, kernels: int, tmp_path: Path, library: TensorRt
) -> None:
    one, two = (built(tmp_path, stage, layers, f"balanced,{stage}=fp8").lowered for layers in (1, 2))
    assert two.kernels - one.kernels == kernels and two.fp8 - one.fp8 == 4
    assert not two.expanded


@pytest.mark.parametrize("precision", ["exact", "balanced", "balanced,encoder=bf16", "balanced,encoder=int8"])
def test_tails_can_be_read_in_every_type(precision: str, tmp_path: Path, library: TensorRt) -> None:
    """A float16 tail is cast where the plan computes in another, and no kernel is there to copy alone, but where the
    attention is taken apart, in float32."""
    found = built(tmp_path, "encoder_tail", 2, precision).lowered
    assert not found.expanded
    assert found.moves == 0 or precision == "exact"


def test_int8_weights_add_no_kernel_to_a_layer(tmp_path: Path, library: TensorRt) -> None:
    """In the layout that the builder writes for a GPU."""
    one, two = (built(tmp_path, "llm", layers, "balanced,llm=int8").lowered for layers in (1, 2))
    assert two.kernels - one.kernels == 11
