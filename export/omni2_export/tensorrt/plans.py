"""Which plans a pipeline consists of: for each its graph, its format, the shapes it accepts, and what its network must
consist of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from omni2_engine.errors import SettingError
from omni2_engine.model.config import ModelConfig
from omni2_engine.model.manifest import PREFILL_SUFFIX
from omni2_engine.stages.encoder_tail import ENCODER_TAIL
from omni2_export.build.graphs import GraphSpec, first_block_specs, graph_specs, tail_spec
from omni2_export.build.precision import Precisions
from omni2_export.build.stages import BYTES, graph_bytes
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.linear import Precision
from omni2_export.graphs.numerics import Numerics
from omni2_export.tensorrt.audit import ExpectedNetwork
from omni2_export.tensorrt.shapes import Sizes, Space, plan_spaces

TENSORRT_TYPES = {ir.DataType.FLOAT: "FLOAT", ir.DataType.FLOAT16: "HALF", ir.DataType.BFLOAT16: "BF16"}

LLM_PREFILL = f"llm{PREFILL_SUFFIX}"

OLDEST = {"bf16": 80, "fp8": 89}  # compute capability × 10 from which on hardware multiplies a type


@dataclass(frozen=True)
class PlanSpec:
    """One plan.

    Args:
        graph: what it is built from.
        precision: as the manifest has it, such as "bf16+int4".
        storage: of linear layers' weights.
        numerics: what it computes in.
        space: the shapes it accepts.
        expected: what an audit of its network must find.
        size: about how many bytes its weights take.
    """

    graph: GraphSpec
    precision: str
    storage: Precision
    numerics: Numerics
    space: Space
    expected: ExpectedNetwork
    size: int

    @property
    def stage(self) -> str:
        """The plan's name."""
        return self.graph.name


def plan_specs(
    config: ModelConfig, modules: Mapping[str, Tensors], formats: Precisions, sizes: Sizes
) -> list[PlanSpec]:
    """Every plan of a pipeline, in the order they are built.

    Args:
        config: the model's dimensions.
        modules: weights of every module.
        formats: what stages compute in and store, for a GPU.
        sizes: what the plans are to hold.
    """
    graphs = graph_specs(config, modules, sizes.rotary_positions(config)) | first_block_specs(config, modules)
    if formats.plan_storage(LLM_PREFILL) is not None:
        graphs[LLM_PREFILL] = replace(graphs["llm"], name=LLM_PREFILL)
    if formats.settings.encoder == "tail":
        graphs[ENCODER_TAIL] = tail_spec(config, modules)
    expected = _expected(config)

    def plan(name: str, space: Space) -> PlanSpec:
        graph = graphs[name]
        numerics, stage = formats.numerics(graph.stage), LLM_PREFILL if name == LLM_PREFILL else graph.stage
        precision = formats.plan_storage(stage) or "fp32"
        if not graph.quantised:
            precision = precision.partition("+")[0]
        storage = formats.of(stage) if graph.quantised else Precision.FP32
        other = 4.0 if numerics.compute == ir.DataType.FLOAT else 2.0  # bytes of a weight that is not quantised
        matrix = other if storage is Precision.FP32 else BYTES[storage]
        size = graph_bytes(modules[graph.module], matrix, other) if graph.module else 0
        found = replace(expected[name], compute=TENSORRT_TYPES[numerics.compute])
        return PlanSpec(graph, precision, storage, numerics, space, found, size)

    return [plan(name, space) for name, space in plan_spaces(config, sizes).items() if name in graphs]


def check_formats(specs: Iterable[PlanSpec], targets: Iterable[str]) -> None:
    """Refuse number formats that a target does not have.

    Raises:
        SettingError: there is one.
    """
    for spec in specs:
        for name in spec.precision.split("+"):
            for target in targets:
                if int(target.removeprefix("sm")) < OLDEST.get(name, 0):
                    raise SettingError(
                        f"{target} has no {name}, which {spec.graph.stage} is to be built in",
                        f"use another with --precision …,{spec.graph.stage}=fp16, or a target from sm{OLDEST[name]} on",
                    )


def _expected(c: ModelConfig) -> dict[str, ExpectedNetwork]:
    """What every plan's network must consist of, from the model's dimensions."""
    blocks = c.estimator.transformers * (c.estimator.mid_blocks + 2)
    layers = c.flow_encoder.blocks + c.flow_encoder.up_blocks
    return {
        "log_mel": ExpectedNetwork(),
        "encoder": ExpectedNetwork(c.encoder.layers, masked=False),  # every position sees the whole window
        ENCODER_TAIL: ExpectedNetwork(c.encoder.layers, masked=False, by_products=True),
        "llm": ExpectedNetwork(c.llm.layers, c.llm.layers, by_products=True),
        LLM_PREFILL: ExpectedNetwork(c.llm.layers, c.llm.layers, by_products=True),
        "fusion": ExpectedNetwork(),
        "speech_lm": ExpectedNetwork(c.speech_lm.layers, c.speech_lm.layers, by_products=True),
        "flow_encoder": ExpectedNetwork(layers, 2 * layers, by_products=True),
        "flow_conditions": ExpectedNetwork(),
        "flow_step": ExpectedNetwork(blocks, blocks, by_products=True),
        "first_flow_encoder": ExpectedNetwork(layers, by_products=True),
        "first_flow_step": ExpectedNetwork(blocks, by_products=True),
        "vocoder": ExpectedNetwork(),
    }
