"""Flow encoder: speech units → μ, the mean the flow starts from; computed for the unfinished block only (spec §8.1,
§11).

A call covers the units from the first one whose block is not final yet. What finished blocks contribute (keys and
values of every layer, two convolution contexts) comes in and goes out as state; a call from unit 0 on is the full
computation.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from omni2_engine.model.config import FlowEncoderConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.attention import attend
from omni2_export.graphs.builder import BOOL, FLOAT, INT64, INT64_MAX, Dim, GraphBuilder
from omni2_export.graphs.convolution import convolve, keep_context
from omni2_export.graphs.linear import LinearWriter, Precision
from omni2_export.graphs.norms import layer_norm

LAYER_EPS = 1e-12  # norms inside the conformer layers, spec §8.1
NORM_EPS = 1e-5  # every other norm
LEAKY_SLOPE = 0.01


def build_flow_encoder(graph: GraphBuilder, config: FlowEncoderConfig, tensors: Tensors) -> None:
    """Add the flow encoder to `graph`.

    Inputs:
        units (1, n) int64: units s … N−1; write (1) int64 = s; commit (1) int64: how many of them are final after this
        call; mask (1, 1, n, N) bool, up_mask (1, 1, r·n, r·N) bool, r = frames per unit: True where a query may look;
        conv_context (1, c₁, width), up_context (1, c₂, width): zeros before the first unit;
        keys_i, values_i (1, heads, capacity, d) and up_keys_i, up_values_i (1, heads, up_capacity, d) per layer; all
        of these of the type the graph computes in.
    Outputs:
        mu (1, r·n, mel) float32; new_conv_context, new_up_context; new_… caches, bound to the inputs' memory.
        Inside: embed_out, prelook_out, layers_out, up_out, encoded.
    """
    g, c = graph, config
    linear = LinearWriter(g, tensors, Precision.FP32)
    units = g.input("units", INT64, [1, "n"])
    write = g.input("write", INT64, [1])
    commit = g.input("commit", INT64, [1])
    mask = g.input("mask", BOOL, [1, 1, "n", "N"])
    up_mask = g.input("up_mask", BOOL, [1, 1, "m", "M"])

    table = g.weight("input_embedding.weight", tensors.read("input_embedding.weight"))
    x = _embed(g, linear, tensors, g.op("Gather", table, units, axis=0), "encoder.embed", c.width, "embed_out")
    x = _look_ahead(g, tensors, c, x, commit)
    x = _layers(g, linear, tensors, c, x, "encoder.encoders", c.blocks, mask, write, "")
    x = g.op("Identity", x, name="layers_out")

    x = _up_sample(g, tensors, c, x, commit)
    x = _embed(g, linear, tensors, x, "encoder.up_embed", c.width, None)
    up_write = g.mul(write, g.constant([c.ratio]))
    x = _layers(g, linear, tensors, c, x, "encoder.up_encoders", c.up_blocks, up_mask, up_write, "up_")
    x = g.op("Identity", layer_norm(g, tensors, x, "encoder.after_norm", NORM_EPS), name="encoded")
    g.output(linear(x, "encoder_proj"), "mu", FLOAT, [1, "m", c.mel])


def _embed(
    g: GraphBuilder, linear: LinearWriter, tensors: Tensors, x: ir.Value, path: str, width: int, name: str | None
) -> ir.Value:
    normed = layer_norm(g, tensors, linear(x, f"{path}.out.0"), f"{path}.out.1", NORM_EPS)
    with g.precise():
        return g.mul(normed, math.sqrt(width), name=name)


def _look_ahead(g: GraphBuilder, tensors: Tensors, c: FlowEncoderConfig, x: ir.Value, commit: ir.Value) -> ir.Value:
    """conv1 sees the next units (zeros beyond the last), conv2 the previous ones; a residual around both."""
    path = "encoder.pre_lookahead_layer"
    kernel = tensors.shape(f"{path}.conv1.weight")[2]
    ahead = g.constant(np.zeros((1, kernel - 1, c.width), np.float32))
    first = convolve(g, tensors, g.concat(x, ahead, axis=1), f"{path}.conv1", axis=1)
    first = g.op("LeakyRelu", first, alpha=LEAKY_SLOPE)
    frames = tensors.shape(f"{path}.conv2.weight")[2] - 1
    extended = _with_context(g, "conv_context", first, commit, frames, c.width)
    return g.residual(x, convolve(g, tensors, extended, f"{path}.conv2", axis=1), name="prelook_out")


def _up_sample(g: GraphBuilder, tensors: Tensors, c: FlowEncoderConfig, x: ir.Value, commit: ir.Value) -> ir.Value:
    """Repeat every position `ratio` times and convolve causally."""
    kernel = tensors.shape("encoder.up_layer.conv.weight")[2]
    context = -(-(kernel - 1) // c.ratio)  # units whose frames the convolution's left side reaches
    extended = _with_context(g, "up_context", x, commit, context, c.width)
    repeated = g.op("Expand", g.op("Unsqueeze", extended, g.constant([2])), g.constant([1, 1, c.ratio, 1]))
    frames = g.reshape(repeated, [1, -1, c.width])
    surplus = context * c.ratio - (kernel - 1)
    if surplus:
        frames = g.slice(frames, surplus, INT64_MAX, axis=1)
    return convolve(g, tensors, frames, "encoder.up_layer.conv", axis=1, name="up_out")


def _with_context(g: GraphBuilder, name: str, x: ir.Value, commit: ir.Value, frames: int, width: int) -> ir.Value:
    shape: list[Dim] = [1, frames, width]
    extended = g.concat(g.input(name, g.compute, shape), x, axis=1)
    g.output(keep_context(g, extended, commit, frames, axis=1), f"new_{name}", g.compute, shape)
    return extended


def _layers(
    g: GraphBuilder,
    linear: LinearWriter,
    tensors: Tensors,
    c: FlowEncoderConfig,
    x: ir.Value,
    path: str,
    count: int,
    mask: ir.Value,
    write: ir.Value,
    prefix: str,
) -> ir.Value:
    """Conformer layers with relative positions; all of them share one table of sinusoids and one additive mask."""
    if not count:
        return x
    width = c.width // c.heads
    total, new = g.size(mask, 3), g.size(mask, 2)
    table = _relative_positions(g, c.width, total, new, f"{prefix}positions")
    hidden = g.op("Where", mask, g.constant(0.0), g.constant(g.lowest))
    for layer in range(count):
        attention = f"{path}.{layer}.self_attn"
        normed = layer_norm(g, tensors, x, f"{path}.{layer}.norm_mha", LAYER_EPS)
        qkv = linear(normed, *(f"{attention}.linear_{part}" for part in "qkv"))
        parts = g.ops("Split", qkv, outputs=3, axis=-1, num_outputs=3)
        query = g.reshape(parts[0], [0, 0, c.heads, width])
        biased = [
            g.transpose(g.add(query, g.weight(f"{attention}.{bias}", tensors.read(f"{attention}.{bias}"))), 0, 2, 1, 3)
            for bias in ("pos_bias_u", "pos_bias_v")
        ]
        caches = []
        for kind, part in (("keys", parts[1]), ("values", parts[2])):
            shape: list[Dim] = [1, c.heads, f"{prefix}capacity", width]
            name = f"{prefix}{kind}_{layer}"
            updated = g.op(
                "TensorScatter", g.input(name, g.compute, shape), g.split_heads(part, c.heads, width), write, axis=2
            )
            g.output(updated, f"new_{name}", g.compute, shape)
            caches.append(g.slice(updated, 0, total, axis=2))
        where = g.split_heads(linear(table, f"{attention}.linear_pos"), c.heads, width)  # (1, heads, L, d)
        by_position = g.op("MatMul", biased[1], g.transpose(where, 0, 1, 3, 2))
        bias = g.add(g.mul(_shift(g, by_position, new, total), width**-0.5), hidden)
        attended = attend(g, biased[0], caches[0], caches[1], bias, width, scale=width**-0.5)
        attended = g.merge_heads(attended, c.heads, width)
        x = g.residual(x, linear(attended, f"{attention}.linear_out"))
        normed = layer_norm(g, tensors, x, f"{path}.{layer}.norm_ff", LAYER_EPS)
        inner = linear(normed, f"{path}.{layer}.feed_forward.w_1")
        x = g.residual(x, linear(g.mul(inner, g.op("Sigmoid", inner)), f"{path}.{layer}.feed_forward.w_2"))
    return x


def _relative_positions(g: GraphBuilder, width: int, total: ir.Value, new: ir.Value, name: str) -> ir.Value:
    """Sinusoids (1, L, width) of the relative positions N−1 … −(n−1), L = N + n − 1, angles in float32 as upstream
    (spec §8.1)."""
    one = g.constant(np.array(1, np.int64))
    scalar = [g.op("Squeeze", value) for value in (total, new)]
    positions = g.op("Range", g.op("Sub", scalar[0], one), g.op("Neg", scalar[1]), g.constant(np.array(-1, np.int64)))
    column = g.op("Unsqueeze", g.op("Cast", positions, to=int(FLOAT)), g.constant([1]))
    exponents = np.arange(0, width, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / width)
    with g.precise():
        angles = g.mul(column, g.constant(np.exp(exponents)[None, :]))  # (L, width / 2)
        waves = [g.op("Unsqueeze", g.op(wave, angles), g.constant([2])) for wave in ("Sin", "Cos")]
    return g.op("Reshape", g.concat(*waves, axis=2), g.constant([1, -1, width]), name=name)


def _shift(g: GraphBuilder, scores: ir.Value, new: ir.Value, total: ir.Value) -> ir.Value:
    """Turn scores by relative position (1, h, n, L) into scores by key (1, h, n, N): entry (i, j) is column n−1−i+j.

    Padding one column and reading the same memory with rows one shorter moves every row left by one more than the last.
    """
    heads = g.size(scores, 1)
    length = g.size(scores, 3)
    padded = g.op("Pad", scores, g.constant([0, 0, 0, 1, 0, 0, 0, 0]))
    one = g.constant([1])
    turned = g.op("Reshape", padded, g.concat(one, heads, g.add(length, one), new, axis=0))
    moved = g.op("Reshape", g.slice(turned, 1, INT64_MAX, axis=2), g.concat(one, heads, new, length, axis=0))
    return g.slice(moved, 0, total, axis=3)
