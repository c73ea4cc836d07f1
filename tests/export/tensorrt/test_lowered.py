"""The kernels that TensorRT's builder makes of a network: counted, and refused where they write weights out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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
"""


def test_a_listing_is_counted() -> None:
    found = read_listing(LISTING)
    assert found == Lowered({"kgen": 3, "gemm": 1}, 2, 1, ("__myl_ReplCastMulCast_myl0_3",)) and found.kernels == 4


@pytest.fixture
def order(library: TensorRt, write_graph: Callable[..., Path], tmp_path: Path) -> Callable[..., Order]:
    """An order of one product with weights in int8, in blocks of so many inputs; None: a scale per channel."""

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


def built(tmp_path: Path, stage: str, layers: int, precision: str) -> Built:
    dimensions = PRESETS["tiny"].changed(**({stage: {"layers": layers}} if layers else {}))
    config, modules = random_modules(dimensions)
    specs = plan_specs(config, modules, parse_precision(precision, GPU), Sizes(2))
    spec = next(spec for spec in specs if spec.stage == stage)
    graph = StandInGraph(**vars(spec.graph)).write(tmp_path, spec.storage, spec.numerics, spec.space.capacities)
    facts = read_facts(graph)
    expected = replace(spec.expected, islands=facts.islands)
    profile = spec.space.profile(facts.inputs)
    return have_built(Order(str(graph), str(tmp_path / "plan"), "sm89", profile, expected, str(tmp_path / "t")))


def test_every_layer_of_a_language_model_adds_as_many_kernels(tmp_path: Path, library: TensorRt) -> None:
    one, two, three = (built(tmp_path, "llm", layers, "balanced").lowered for layers in (1, 2, 3))
    assert three.kernels - two.kernels == two.kernels - one.kernels == 12
    assert two.cache_copies == 4  # what is visible of keys and of values, in both layers
    assert not three.expanded


def test_int8_weights_add_no_kernel_to_a_layer(tmp_path: Path, library: TensorRt) -> None:
    """In the layout that the builder writes for a GPU."""
    one, two = (built(tmp_path, "llm", layers, "balanced,llm=int8").lowered for layers in (1, 2))
    assert two.kernels - one.kernels == 12
