"""How much arithmetic and how many bytes a stage needs at least, from the model's dimensions (spec §3, §5, §8, §9).

An operation is one multiplication or addition. Only products of matrices and convolutions count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni2_engine.model.config import (
    DecoderConfig,
    EncoderConfig,
    EstimatorConfig,
    FlowEncoderConfig,
    ModelConfig,
    VocoderConfig,
)
from omni2_export.checkpoint.names import (
    decoder_shapes,
    encoder_shapes,
    estimator_shapes,
    flow_encoder_shapes,
    vocoder_shapes,
)

Shapes = dict[str, tuple[int, ...]]
TABLES = ("embed", "positional")  # looked up, not multiplied


@dataclass(frozen=True)
class Work:
    """Operations of weights that a preset may quantise, and all others, which stay float32."""

    linear: float
    other: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.linear + self.other


def matrices(shapes: Shapes, *prefixes: str) -> list[int]:
    """How many weights each matrix and each convolution below these names has, looked-up tables left out."""
    return [
        math.prod(shape)
        for name, shape in shapes.items()
        if name.startswith(prefixes) and len(shape) >= 2 and not any(table in name.split(".")[0] for table in TABLES)
    ]


def _multiplied(shapes: Shapes, *prefixes: str) -> float:
    """Weights below these names that every position is multiplied with."""
    return float(sum(matrices(shapes, *prefixes)))


def flow_encoder_weights(c: FlowEncoderConfig) -> Shapes:
    """The flow encoder's tensors less those that work on positions alone, whose results can be kept."""
    return {name: shape for name, shape in flow_encoder_shapes(c).items() if "linear_pos" not in name}


def estimator_weights(c: EstimatorConfig) -> Shapes:
    """The velocity network's tensors less those that work on time alone, whose results can be kept."""
    return {name: shape for name, shape in estimator_shapes(c).items() if "mlp." not in name}


def encoder_work(c: EncoderConfig, computed: int | None = None) -> Work:
    """One window, or that number of its positions, which look at all of it: the blocks' linear layers; attention,
    convolutions and projector."""
    shapes, n = encoder_shapes(c), c.context if computed is None else computed
    linear = 2 * n * _multiplied(shapes, "blocks.")
    attention = c.layers * 4 * n * c.context * c.width
    convolutions = 4 * n * _multiplied(shapes, "conv1.") + 2 * n * _multiplied(shapes, "conv2.")
    vectors = c.positions if computed is None else n // c.stack
    return Work(linear, attention + convolutions + 2 * vectors * _multiplied(shapes, "projector."))


def prefill_work(c: DecoderConfig, positions: int, seen: int = 0) -> Work:
    """All positions, behind `seen` that the cache holds, through the layers; the last one through the head."""
    shapes = decoder_shapes(c)
    keys = positions * seen + positions**2 / 2  # half of what is not causal
    attention = c.layers * 4 * keys * c.heads * c.head_dim
    return Work(2 * positions * _multiplied(shapes, "layers.") + 2 * _multiplied(shapes, "lm_head."), attention)


def flow_work(config: ModelConfig, frames: int, seen: int) -> Work:
    """Calls that compute `frames` mel frames in all, each looking at others, `seen` summed over them: the velocity
    network's linear layers and convolutions; its attention, and the flow encoder."""
    c, e = config.flow_encoder, config.estimator
    estimator, encoder = estimator_weights(e), flow_encoder_weights(c)
    transformers = e.transformers * (e.mid_blocks + 2)
    rows = 2 * e.steps  # every step computes a conditional and an unconditional row
    linear = rows * 2 * frames * _multiplied(estimator, "decoder.")
    attention: float = rows * 4 * seen * transformers * e.heads * e.head_dim
    up = _multiplied(encoder, "encoder.up_", "encoder_proj.")
    units = _multiplied(encoder, "encoder.") - _multiplied(encoder, "encoder.up_")
    attention += 4 * seen * c.width * (c.up_blocks + c.blocks / c.ratio**2)
    return Work(linear, 2 * frames * (up + units / c.ratio) + attention)


def vocoder_work(c: VocoderConfig, frames: int) -> Work:
    """One call; a transposed convolution multiplies each input position with its whole kernel."""
    shapes = vocoder_shapes(c)
    total: float = frames * (_multiplied(shapes, "conv_pre.") + _multiplied(shapes, "f0_predictor."))
    length, branches = frames, len(c.resblock_kernels)
    for i, rate in enumerate(c.upsample_rates):
        total += length * _multiplied(shapes, f"ups.{i}.")
        length *= rate
        blocks = [f"resblocks.{i * branches + k}." for k in range(branches)]
        total += length * _multiplied(shapes, f"source_downs.{i}.", f"source_resblocks.{i}.", *blocks)
    return Work(0.0, 2 * (total + length * _multiplied(shapes, "conv_post.")))


def weight_bytes(graph: Path) -> int:
    """Bytes of a graph's weights that every call reads whole: all but the rotary tables, of which it reads rows."""
    import onnx_ir

    model = onnx_ir.load(graph)
    return sum(value.const_value.nbytes for value in _read(model.graph.initializers.values()))


def _read(initializers: Iterable[Any]) -> Iterable[Any]:  # onnx_ir.Value; the package is heavy
    for value in initializers:
        users = {node.op_type for node, _ in value.uses()}
        if users - {"RotaryEmbedding", "Gather"}:
            yield value
