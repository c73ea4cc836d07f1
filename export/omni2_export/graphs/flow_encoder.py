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
from omni2_export.graphs.attention import attend, attend_by_products
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
    _add_encoder(graph, config, tensors, _EncoderState(graph, config))


def build_first_flow_encoder(graph: GraphBuilder, config: FlowEncoderConfig, tensors: Tensors) -> None:
    """Add the flow encoder of a turn's first units, while no block is finished: it reads no state and leaves none.

    Inputs and outputs are those of `build_flow_encoder` without state, write and commit; masks are (1, 1, n, n) and
    (1, 1, r·n, r·n). One more input, present (1, n, 1) float32, is 0 for units that only fill a call up, and 1.
    """
    _add_encoder(graph, config, tensors, None)


class _EncoderState:
    """The encoder's state; adds its inputs to a graph, and its outputs as they are computed.

    Args:
        g: the graph.
        c: the encoder's dimensions.
    """

    def __init__(self, g: GraphBuilder, c: FlowEncoderConfig) -> None:
        self._g, self._c = g, c
        self.write = g.input("write", INT64, [1])
        self._commit = g.input("commit", INT64, [1])

    def extend(self, name: str, x: ir.Value, frames: int) -> ir.Value:
        """x (1, n, width) behind the context of that name, `frames` long."""
        g, shape = self._g, [1, frames, self._c.width]
        extended = g.concat(g.input(name, g.compute, shape), x, axis=1)
        g.output(keep_context(g, extended, self._commit, frames, axis=1), f"new_{name}", g.compute, shape)
        return extended

    def update(self, name: str, new: ir.Value, write: ir.Value, capacity: str, total: ir.Value) -> ir.Value:
        """The first `total` positions of a cache with new ones (1, heads, n, d) in it."""
        g, c = self._g, self._c
        shape: list[Dim] = [1, c.heads, capacity, c.width // c.heads]
        updated = g.op("TensorScatter", g.input(name, g.compute, shape), new, write, axis=2)
        g.output(updated, f"new_{name}", g.compute, shape)
        return g.slice(updated, 0, total, axis=2)


def _add_encoder(g: GraphBuilder, c: FlowEncoderConfig, tensors: Tensors, kept: _EncoderState | None) -> None:
    linear = LinearWriter(g, tensors, Precision.FP32)
    seen, up_seen = ("n", "m") if kept is None else ("N", "M")
    units = g.input("units", INT64, [1, "n"])
    mask = g.input("mask", BOOL, [1, 1, "n", seen])
    up_mask = g.input("up_mask", BOOL, [1, 1, "m", up_seen])

    table = g.weight("input_embedding.weight", tensors.read("input_embedding.weight"))
    x = _embed(g, linear, tensors, g.op("Gather", table, units, axis=0), "encoder.embed", c.width, "embed_out")
    shown = x if kept else g.mul(x, g.input("present", FLOAT, [1, "n", 1]))
    x = _look_ahead(g, tensors, c, x, shown, kept)
    x = _layers(g, linear, tensors, c, x, "encoder.encoders", c.blocks, mask, kept, "")
    x = g.op("Identity", x, name="layers_out")

    x = _up_sample(g, tensors, c, x, kept)
    x = _embed(g, linear, tensors, x, "encoder.up_embed", c.width, None)
    x = _layers(g, linear, tensors, c, x, "encoder.up_encoders", c.up_blocks, up_mask, kept, "up_")
    x = g.op("Identity", layer_norm(g, tensors, x, "encoder.after_norm", NORM_EPS), name="encoded")
    g.output(linear(x, "encoder_proj"), "mu", FLOAT, [1, "m", c.mel])


def _embed(
    g: GraphBuilder, linear: LinearWriter, tensors: Tensors, x: ir.Value, path: str, width: int, name: str | None
) -> ir.Value:
    normed = layer_norm(g, tensors, linear(x, f"{path}.out.0"), f"{path}.out.1", NORM_EPS)
    with g.precise():
        return g.mul(normed, math.sqrt(width), name=name)


def _look_ahead(
    g: GraphBuilder,
    tensors: Tensors,
    c: FlowEncoderConfig,
    x: ir.Value,
    shown: ir.Value,
    kept: _EncoderState | None,
) -> ir.Value:
    """conv1 sees the next units (zeros beyond the last), conv2 the previous ones; a residual around both. `shown` is x
    as conv1 sees it."""
    path = "encoder.pre_lookahead_layer"
    kernel = tensors.shape(f"{path}.conv1.weight")[2]
    ahead = g.constant(np.zeros((1, kernel - 1, c.width), np.float32))
    first = convolve(g, tensors, g.concat(shown, ahead, axis=1), f"{path}.conv1", axis=1)
    first = g.op("LeakyRelu", first, alpha=LEAKY_SLOPE)
    frames = tensors.shape(f"{path}.conv2.weight")[2] - 1
    extended = first if kept is None else kept.extend("conv_context", first, frames)
    second = convolve(g, tensors, extended, f"{path}.conv2", axis=1, silence=kept is None)
    return g.residual(x, second, name="prelook_out")


def _up_sample(
    g: GraphBuilder, tensors: Tensors, c: FlowEncoderConfig, x: ir.Value, kept: _EncoderState | None
) -> ir.Value:
    """Repeat every position `ratio` times and convolve causally."""
    kernel = tensors.shape("encoder.up_layer.conv.weight")[2]
    context = -(-(kernel - 1) // c.ratio)  # units whose frames the convolution's left side reaches
    extended = x if kept is None else kept.extend("up_context", x, context)
    repeated = g.op("Expand", g.op("Unsqueeze", extended, g.constant([2])), g.constant([1, 1, c.ratio, 1]))
    frames = g.reshape(repeated, [1, -1, c.width])
    surplus = context * c.ratio - (kernel - 1)
    if surplus and kept is not None:
        frames = g.slice(frames, surplus, INT64_MAX, axis=1)
    return convolve(g, tensors, frames, "encoder.up_layer.conv", axis=1, name="up_out", silence=kept is None)


def _layers(
    g: GraphBuilder,
    linear: LinearWriter,
    tensors: Tensors,
    c: FlowEncoderConfig,
    x: ir.Value,
    path: str,
    count: int,
    mask: ir.Value,
    kept: _EncoderState | None,
    prefix: str,
) -> ir.Value:
    """Conformer layers with relative positions; all of them share one table of sinusoids and one additive mask."""
    if not count:
        return x
    width = c.width // c.heads
    total, new = g.size(mask, 3), g.size(mask, 2)
    table = _relative_positions(g, c.width, total, new, f"{prefix}positions")
    hidden = g.op("Where", mask, g.constant(0.0), g.constant(g.lowest))
    write = None if kept is None else g.mul(kept.write, g.constant([c.ratio])) if prefix else kept.write
    for layer in range(count):
        attention = f"{path}.{layer}.self_attn"
        normed = layer_norm(g, tensors, x, f"{path}.{layer}.norm_mha", LAYER_EPS)
        query, key, value = _heads(g, linear, tensors, normed, attention, c.heads, width)
        biased = [
            g.transpose(g.add(query, g.weight(f"{attention}.{bias}", tensors.read(f"{attention}.{bias}"))), 0, 2, 1, 3)
            for bias in ("pos_bias_u", "pos_bias_v")
        ]
        seen = {"keys": g.transpose(key, 0, 2, 1, 3), "values": g.transpose(value, 0, 2, 1, 3)}
        if kept is not None and write is not None:
            capacity = f"{prefix}capacity"
            seen = {
                kind: kept.update(f"{prefix}{kind}_{layer}", part, write, capacity, total)
                for kind, part in seen.items()
            }
        where = g.split_heads(linear(table, f"{attention}.linear_pos"), c.heads, width)  # (1, heads, L, d)
        by_position = g.op("MatMul", biased[1], g.transpose(where, 0, 1, 3, 2))
        bias = g.add(g.mul(_shift(g, by_position, new, total), width**-0.5), hidden)
        attended = _attend(g, biased[0], seen["keys"], seen["values"], bias, width)
        attended = g.merge_heads(attended, c.heads, width)
        x = g.residual(x, linear(attended, f"{attention}.linear_out"))
        normed = layer_norm(g, tensors, x, f"{path}.{layer}.norm_ff", LAYER_EPS)
        inner = linear(normed, f"{path}.{layer}.feed_forward.w_1")
        x = g.residual(x, linear(g.mul(inner, g.op("Sigmoid", inner)), f"{path}.{layer}.feed_forward.w_2"))
    return x


def _heads(
    g: GraphBuilder, linear: LinearWriter, tensors: Tensors, normed: ir.Value, path: str, heads: int, width: int
) -> list[ir.Value]:
    """Query, key and value (1, n, heads, d) of a normed x. For a GPU the product has them side by side for every head:
    so they are taken apart in the kernel that adds to the query anyway."""
    layers = [f"{path}.linear_{part}" for part in "qkv"]
    if not g.numerics.device:
        parts = g.ops("Split", linear(normed, *layers), outputs=3, axis=-1, num_outputs=3)
        return [g.reshape(part, [0, 0, heads, width]) for part in parts]
    weight, bias = (
        np.stack([tensors.read(f"{layer}.{kind}").reshape(heads, width, -1) for layer in layers], axis=1)
        for kind in ("weight", "bias")
    )
    product = g.op("MatMul", normed, g.weight(f"{path}.linear_qkv.weight", weight.reshape(-1, weight.shape[-1]).T))
    joined = g.add(product, g.weight(f"{path}.linear_qkv.bias", bias.reshape(-1)))
    joined = g.reshape(joined, [1, -1, heads, 3 * width])
    return [g.slice(joined, part * width, (part + 1) * width, axis=3) for part in range(3)]


def _attend(g: GraphBuilder, query: ir.Value, key: ir.Value, value: ir.Value, bias: ir.Value, width: int) -> ir.Value:
    """Attention of (1, heads, …, width) with a bias (1, heads, n, N), as the device computes it fastest."""
    if not g.numerics.device:
        return attend(g, query, key, value, bias, width, scale=width**-0.5)
    scaled = g.mul(query, width**-0.5)
    flat = [g.op("Squeeze", part, g.constant([0])) for part in (scaled, key, value, bias)]
    return g.op("Unsqueeze", attend_by_products(g, flat[0], flat[1], flat[2], bias=flat[3]), g.constant([0]))


def _relative_positions(g: GraphBuilder, width: int, total: ir.Value, new: ir.Value, name: str) -> ir.Value:
    """Sinusoids (1, N + n, width) of the relative positions N … −(n−1), angles in float32 as upstream (spec §8.1). The
    first is one that no key has: see `_shift`."""
    scalar = [g.op("Squeeze", value) for value in (total, new)]
    positions = g.op("Range", scalar[0], g.op("Neg", scalar[1]), g.constant(np.array(-1, np.int64)))
    column = g.op("Unsqueeze", g.op("Cast", positions, to=int(FLOAT)), g.constant([1]))
    exponents = np.arange(0, width, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / width)
    with g.precise():
        angles = g.mul(column, g.constant(np.exp(exponents)[None, :]))  # (N + n, width / 2)
        waves = [g.op("Unsqueeze", g.op(wave, angles), g.constant([2])) for wave in ("Sin", "Cos")]
    return g.op("Reshape", g.concat(*waves, axis=2), g.constant([1, -1, width]), name=name)


def _shift(g: GraphBuilder, scores: ir.Value, new: ir.Value, total: ir.Value) -> ir.Value:
    """Turn scores by relative position (1, h, n, N + n) into scores by key (1, h, n, N): entry (i, j) is column n−i+j.

    Reading the same memory from the n-th value on with rows one shorter moves every row left by one more than the last.
    """
    heads = g.size(scores, 1)
    length = g.size(scores, 3)
    one = g.constant([1])
    turned = g.op("Reshape", scores, g.concat(one, heads, length, new, axis=0))
    shape = g.concat(one, heads, new, g.op("Sub", length, one), axis=0)
    moved = g.op("Reshape", g.slice(turned, 1, INT64_MAX, axis=2), shape)
    return g.slice(moved, 0, total, axis=3)
