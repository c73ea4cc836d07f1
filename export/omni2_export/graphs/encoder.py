"""Whisper encoder and projector: log-mel → vectors the language model reads in place of text (spec §3)."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from omni2_engine.model.config import EncoderConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.attention import attend, attend_by_products
from omni2_export.graphs.builder import FLOAT, GraphBuilder
from omni2_export.graphs.linear import LinearWriter, Precision
from omni2_export.graphs.norms import layer_norm

LAYER_NORM_EPS = 1e-5
Seen = Callable[[int, int, ir.Value], ir.Value]  # (layer, 0 of keys and 1 of values, those of the queries)


def build_encoder(graph: GraphBuilder, config: EncoderConfig, tensors: Tensors, precision: Precision) -> None:
    """Add encoder and projector to `graph`; the projector and the convolutions are always float32.

    Inputs: log_mel (1, mel_bins, frames) float32.
    Outputs: speech (1, positions, output) float32. Inside: keys_i, values_i (1, heads, context, width / heads) of every
        layer; encoder_out (1, context, width), after ln_post.
    """
    g, c = graph, config
    x = convolutions(g, tensors, g.input("log_mel", FLOAT, [1, c.mel_bins, c.frames]))
    with g.precise():
        x = g.add(x, g.weight("positional_embedding", tensors.read("positional_embedding")))
    encoded = layers(g, c, tensors, precision, x)
    kept = g.slice(encoded, 0, c.positions * c.stack, axis=1)
    g.output(project(g, c, tensors, kept), "speech", FLOAT, [1, c.positions, c.output])


def convolutions(g: GraphBuilder, tensors: Tensors, mel: ir.Value) -> ir.Value:
    """(1, frames / 2, width) of the log-mel (1, mel_bins, frames)."""
    x = _convolution(g, tensors, mel, "conv1", stride=1)
    return g.transpose(_convolution(g, tensors, x, "conv2", stride=2), 0, 2, 1)


def layers(
    g: GraphBuilder,
    c: EncoderConfig,
    tensors: Tensors,
    precision: Precision,
    x: ir.Value,
    seen: Seen | None = None,
    by_products: bool = False,
) -> ir.Value:
    """The transformer and its last norm over x (1, n, width).

    Args:
        seen: makes what a layer's queries look at of its keys or values; themselves without it.
        by_products: write attention out, see `attend_by_products`.
    """
    linear, width = LinearWriter(g, tensors, precision), c.width // c.heads
    for layer in range(c.layers):
        path = f"blocks.{layer}"
        normed = layer_norm(g, tensors, x, f"{path}.attn_ln", LAYER_NORM_EPS)
        qkv = linear(normed, f"{path}.attn.query", f"{path}.attn.key", f"{path}.attn.value")
        query, key, value = (
            g.split_heads(p, c.heads, width) for p in g.ops("Split", qkv, outputs=3, axis=-1, num_outputs=3)
        )
        key.name, value.name = f"keys_{layer}", f"values_{layer}"
        if seen:
            key, value = seen(layer, 0, key), seen(layer, 1, value)
        if by_products:
            attended = _attend_by_products(g, query, key, value, width)
        else:
            attended = attend(g, query, key, value, None, width, scale=width**-0.5)
        x = g.residual(x, linear(g.merge_heads(attended, c.heads, width), f"{path}.attn.out"))
        normed = layer_norm(g, tensors, x, f"{path}.mlp_ln", LAYER_NORM_EPS)
        inner = g.op("Gelu", linear(normed, f"{path}.mlp.0"))
        x = g.residual(x, linear(inner, f"{path}.mlp.2"), name=f"layer_{layer}_out")
    return g.op("Identity", layer_norm(g, tensors, x, "ln_post", LAYER_NORM_EPS), name="encoder_out")


def _attend_by_products(g: GraphBuilder, query: ir.Value, key: ir.Value, value: ir.Value, width: int) -> ir.Value:
    """`attend` of (1, heads, …, width). TensorRT puts a tail behind keys and values in one kernel here (`bench
    kernels`)."""
    parts = (g.mul(query, width**-0.5), key, value)
    query, key, value = (g.op("Squeeze", part, g.constant([0])) for part in parts)
    return g.op("Unsqueeze", attend_by_products(g, query, key, value), g.constant([0]))


def project(g: GraphBuilder, c: EncoderConfig, tensors: Tensors, encoded: ir.Value) -> ir.Value:
    """What the language model reads, (1, n / stack, output), of (1, n, width)."""
    exact = LinearWriter(g, tensors, Precision.FP32)
    stacked = g.reshape(encoded, [1, -1, c.stack * c.width])
    return exact(g.op("Relu", exact(stacked, "projector.linear1")), "projector.linear2")


def _convolution(g: GraphBuilder, tensors: Tensors, x: ir.Value, name: str, stride: int) -> ir.Value:
    kernel = tensors.shape(f"{name}.weight")[2]
    weight = g.weight(f"{name}.weight", tensors.read(f"{name}.weight"))
    bias = g.weight(f"{name}.bias", tensors.read(f"{name}.bias"))
    padding = (kernel - 1) // 2
    return g.op("Gelu", g.op("Conv", x, weight, bias, strides=[stride], pads=[padding, padding]))
