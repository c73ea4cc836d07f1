"""Every graph of a model, in the order they are built: one list for all targets and precisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from omni2_engine.model.config import DecoderConfig, ModelConfig
from omni2_engine.stages.encoder_tail import ENCODER_TAIL
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import GraphBuilder, Numerics
from omni2_export.graphs.encoder import build_encoder
from omni2_export.graphs.encoder_tail import build_encoder_tail
from omni2_export.graphs.flow_encoder import build_first_flow_encoder, build_flow_encoder
from omni2_export.graphs.flow_step import build_first_flow_step, build_flow_conditions, build_flow_step
from omni2_export.graphs.fusion import build_fusion
from omni2_export.graphs.language_model import build_language_model
from omni2_export.graphs.linear import Precision
from omni2_export.graphs.log_mel import build_log_mel
from omni2_export.graphs.vocoder import build_vocoder
from omni2_export.graphs.weights import WeightWriter

LONGEST_CONTEXT = 32_768  # positions of the rotary tables
Build = Callable[[GraphBuilder, Precision], None]


@dataclass(frozen=True)
class GraphSpec:
    """One graph.

    Args:
        name: of the graph and its files.
        module: of the checkpoint, whose weights it has; None if it has none.
        stage: whose precision it is built at, see `Precisions`.
        build: adds it to a builder, its linear layers at a precision.
        quantised: whether that precision may be a quantised one; otherwise the graph only follows what the stage
            computes in.
    """

    name: str
    module: str | None
    stage: str
    build: Build
    quantised: bool = False
    builder: ClassVar[type[GraphBuilder]] = GraphBuilder

    def write(
        self,
        folder: Path,
        precision: Precision,
        numerics: Numerics | None = None,
        sizes: Mapping[str, int] | None = None,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> Path:
        """Write the graph and its weights.

        Args:
            folder: where to.
            precision: of the linear layers.
            numerics, sizes: see `GraphBuilder`.
            on_bytes: see `WeightWriter`.

        Returns:
            The `.onnx` file.

        Raises:
            Omni2Error: the disk is full.
            SettingError: a weight is beyond the range of the type to compute in.
        """
        path = folder / f"{self.name}.onnx"
        with WeightWriter(path.with_suffix(".weights"), on_bytes) as writer:
            builder = self.builder(self.name, writer, numerics, sizes)
            self.build(builder, precision)
            builder.save(path)
        return path


@dataclass(frozen=True)
class Reductions:
    """What graphs leave out.

    Args:
        scored: ids that the speech LM's head scores, ascending; all of them if None.
        flow_caches: type of the velocity network's keys and values; that of the graph if None.
    """

    scored: Sequence[int] | None = None
    flow_caches: ir.DataType | None = None


def graph_specs(
    c: ModelConfig,
    modules: Mapping[str, Tensors],
    positions: int = LONGEST_CONTEXT,
    reductions: Reductions = Reductions(),
) -> dict[str, GraphSpec]:
    """Every graph of a model by its name, but those about voices.

    Args:
        c: the model's dimensions.
        modules: weights of every module.
        positions: length of the language models' rotary tables.
        reductions: what is left out of them.
    """

    def language_model(name: str, config: DecoderConfig, scored: Sequence[int] | None = None) -> GraphSpec:
        def build(g: GraphBuilder, precision: Precision) -> None:
            build_language_model(g, config, modules[name], precision, positions, scored)

        return GraphSpec(name, name, name, build, quantised=True)

    def flow(name: str, build: Build, quantised: bool = False) -> GraphSpec:
        return GraphSpec(name, "flow", "flow", build, quantised)

    def step(g: GraphBuilder, precision: Precision) -> None:
        build_flow_step(g, c.estimator, weights, precision, reductions.flow_caches)

    encoder, weights = modules["encoder"], modules["flow"]
    specs = [
        GraphSpec("log_mel", None, "log_mel", lambda g, _: build_log_mel(g, c.encoder)),
        GraphSpec("encoder", "encoder", "encoder", lambda g, p: build_encoder(g, c.encoder, encoder, p), True),
        language_model("llm", c.llm),
        GraphSpec("fusion", "fusion", "fusion", lambda g, _: build_fusion(g, c.fusion, modules["fusion"])),
        language_model("speech_lm", c.speech_lm, reductions.scored),
        flow("flow_encoder", lambda g, _: build_flow_encoder(g, c.flow_encoder, weights)),
        flow("flow_conditions", lambda g, _: build_flow_conditions(g, c.estimator, weights)),
        flow("flow_step", step, quantised=True),
        GraphSpec("vocoder", "vocoder", "vocoder", lambda g, _: build_vocoder(g, c.vocoder, modules["vocoder"])),
    ]
    return {spec.name: spec for spec in specs}


def tail_spec(c: ModelConfig, modules: Mapping[str, Tensors]) -> GraphSpec:
    """The encoder that reads the silence behind a question from another window, with weights of its own, for TensorRT.
    A CPU's has those of the encoder's file, see `plan_tail_stage`."""

    def build(g: GraphBuilder, precision: Precision) -> None:
        build_encoder_tail(g, c.encoder, modules["encoder"], precision)

    return GraphSpec(ENCODER_TAIL, "encoder", "encoder", build, quantised=True)


def first_block_specs(c: ModelConfig, modules: Mapping[str, Tensors]) -> dict[str, GraphSpec]:
    """The flow of a turn's first block, by name: graphs without state, for TensorRT. A CPU gains nothing by them."""
    weights = modules["flow"]
    first: list[tuple[str, Build]] = [
        ("first_flow_encoder", lambda g, _: build_first_flow_encoder(g, c.flow_encoder, weights)),
        ("first_flow_step", lambda g, _: build_first_flow_step(g, c.estimator, weights)),
    ]
    return {name: GraphSpec(name, "flow", "flow", build) for name, build in first}
