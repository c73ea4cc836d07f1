"""Which plans a pipeline consists of: for each stage its graph, the shapes it accepts, and what an audit must find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omni2_engine.config import VOCODER_OVERLAP_FRAMES, ModelConfig
from omni2_export.checkpoint import Checkpoint
from omni2_export.graphs.builder import GraphBuilder
from omni2_export.graphs.encoder import build_encoder
from omni2_export.graphs.flow_encoder import build_flow_encoder
from omni2_export.graphs.flow_step import build_flow_conditions, build_flow_step
from omni2_export.graphs.fusion import build_fusion
from omni2_export.graphs.language_model import build_language_model
from omni2_export.graphs.linear import Precision
from omni2_export.graphs.log_mel import build_log_mel
from omni2_export.graphs.vocoder import build_vocoder
from omni2_export.tensorrt.audit import Expected
from omni2_export.tensorrt.shapes import PREFILL, Range, Sizes, whole


@dataclass(frozen=True)
class PlanSpec:
    """One plan.

    Args:
        stage: its name.
        module: of the checkpoint whose weights it has; None if it has none.
        build: adds its graph.
        capacities: symbolic dimensions that become a number: lengths of caches.
        ranges: what the other symbolic dimensions may be.
        expected: what the parsed network must consist of.
    """

    stage: str
    module: str | None
    build: Callable[[GraphBuilder], None]
    capacities: Mapping[str, int]
    ranges: Mapping[str, Range]
    expected: Expected


def plan_specs(checkpoint: Checkpoint, sizes: Sizes, positions: int) -> list[PlanSpec]:
    """Every plan of a pipeline, in the order they are built.

    Args:
        checkpoint: the opened checkpoint.
        sizes: what the plans are to hold.
        positions: length of the rotary tables.
    """
    c, modules = checkpoint.config, checkpoint.modules
    transformers = c.estimator.transformers * (c.estimator.mid_blocks + 2)
    encoder_layers = c.flow_encoder.blocks + c.flow_encoder.up_blocks

    def language_model(stage: str, most: int) -> PlanSpec:
        config = getattr(c, stage)
        capacity = whole(most)
        return PlanSpec(
            stage,
            stage,
            lambda g: build_language_model(g, config, modules[stage], Precision.FP32, positions),
            {"capacity": capacity},
            {
                "B": Range(1, sizes.sessions, sizes.sessions),
                "S": Range(1, 1, min(PREFILL, capacity)),
                "T": Range(1, capacity // 4, capacity),
            },
            Expected(attentions=config.layers, caches=2 * config.layers),
        )

    return [
        PlanSpec("log_mel", None, lambda g: build_log_mel(g, c.encoder), {}, {}, Expected()),
        PlanSpec(
            "encoder",
            "encoder",
            lambda g: build_encoder(g, c.encoder, modules["encoder"], Precision.FP32),
            {},
            {},
            Expected(attentions=c.encoder.layers, masked=False),  # every position attends to the whole window
        ),
        language_model("llm", sizes.context),
        PlanSpec(
            "fusion",
            "fusion",
            lambda g: build_fusion(g, c.fusion, modules["fusion"]),
            {},
            {"n": Range(1, c.read, c.read * sizes.sessions)},
            Expected(),
        ),
        language_model("speech_lm", sizes.speech_positions(c)),
        PlanSpec(
            "flow_encoder",
            "flow",
            lambda g: build_flow_encoder(g, c.flow_encoder, modules["flow"]),
            *_flow_encoder_shapes(c, sizes),
            Expected(attentions=encoder_layers, caches=2 * encoder_layers),
        ),
        PlanSpec(
            "flow_conditions",
            "flow",
            lambda g: build_flow_conditions(g, c.estimator, modules["flow"]),
            {},
            {"k": Range(1, c.estimator.steps, c.estimator.steps)},
            Expected(),
        ),
        PlanSpec(
            "flow_step",
            "flow",
            lambda g: build_flow_step(g, c.estimator, modules["flow"]),
            *_flow_step_shapes(c, sizes),
            Expected(attentions=transformers, caches=2 * transformers),
        ),
        PlanSpec(
            "vocoder",
            "vocoder",
            lambda g: build_vocoder(g, c.vocoder, modules["vocoder"]),
            {},
            _vocoder_ranges(c, sizes),
            Expected(),
        ),
    ]


def _flow_encoder_shapes(c: ModelConfig, sizes: Sizes) -> tuple[dict[str, int], dict[str, Range]]:
    units = sizes.units_per_call(c)
    seen = whole(max(sizes.speech_positions(c), units.most))
    ratio = c.flow_encoder.ratio
    return (
        {"capacity": seen, "up_capacity": ratio * seen},
        {
            "n": units,
            "N": Range(1, seen // 4, seen),
            "m": _scaled(units, ratio),
            "M": _scaled(Range(1, seen // 4, seen), ratio),
        },
    )


def _flow_step_shapes(c: ModelConfig, sizes: Sizes) -> tuple[dict[str, int], dict[str, Range]]:
    frames = _scaled(sizes.units_per_call(c), c.flow_encoder.ratio)
    capacity = max(sizes.flow_frames(c), frames.most)
    return {"capacity": capacity}, {"t": frames, "T": Range(1, capacity // 4, capacity)}


def _vocoder_ranges(c: ModelConfig, sizes: Sizes) -> dict[str, Range]:
    new = _scaled(sizes.units_per_call(c), c.flow_encoder.ratio)
    frames = Range(1, c.write * c.flow_encoder.ratio + VOCODER_OVERLAP_FRAMES, new.most + VOCODER_OVERLAP_FRAMES)
    overlap = c.vocoder.overlap
    return {"F": frames, "samples": _scaled(frames, c.vocoder.hop), "cached": Range(0, overlap, overlap)}


def _scaled(given: Range, factor: int) -> Range:
    return Range(*(factor * value for value in given))
