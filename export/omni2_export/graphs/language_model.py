"""Qwen2 decoder with a static KV cache: one graph for prefill and decode, for the language model and the speech LM
(spec §5).

Every row of the batch is a slot with a length of its own: the caller says where its new positions are written and what
each may see.
"""

from __future__ import annotations

import numpy as np

from omni2_engine.model.config import DecoderConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.attention import attend
from omni2_export.graphs.builder import BOOL, FLOAT, INT64, Dim, GraphBuilder
from omni2_export.graphs.linear import LinearWriter, Precision
from omni2_export.graphs.norms import rms_norm


def build_language_model(
    graph: GraphBuilder, config: DecoderConfig, tensors: Tensors, precision: Precision, positions: int
) -> None:
    """Add a Qwen2 decoder to `graph`.

    Inputs:
        embeds (B, S, hidden) float32; positions (B, S) int64; write (B) int64, the first cache position written;
        last (B, 1) int64, which of the S positions gives logits; mask (B, 1, S, T) bool, True where a query may look,
        T ≤ capacity; keys_i, values_i (B, kv_heads, capacity, head_dim) per layer, of the type the graph computes in.
    Outputs:
        logits (B, vocab) float32; hidden (B, hidden) float32 after the final norm, both at `last`;
        new_keys_i, new_values_i: the caches, to be bound to the inputs' own memory.

    Args:
        precision: of the linear layers. With int4 on a CPU attention and the head are stored in int8: attention is an
            eighth of the layers' weights, and most of their error.
        positions: length of the rotary tables: no cache may be longer.
    """
    g, c = graph, config
    linear = LinearWriter(g, tensors, precision)
    kept = Precision.INT8 if precision is Precision.INT4 and not g.numerics.device else precision
    x = g.input("embeds", FLOAT, ["B", "S", c.hidden])
    position_ids = g.input("positions", INT64, ["B", "S"])
    write = g.input("write", INT64, ["B"])
    last = g.input("last", INT64, ["B", 1])
    mask = g.input("mask", BOOL, ["B", 1, "S", "T"])
    visible = g.size(mask, 3)
    with g.precise():
        cosine, sine = (g.weight(name, table) for name, table in _rotary_tables(c, positions))

    for layer in range(c.layers):
        path = f"layers.{layer}"
        normed = rms_norm(g, tensors, x, f"{path}.input_layernorm", c.rms_eps)
        qkv = linear(normed, *(f"{path}.self_attn.{part}_proj" for part in "qkv"), precision=kept)
        widths = [c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim]
        query, key, value = g.ops("Split", qkv, g.constant(widths), outputs=3, axis=-1)
        with g.precise():  # angles and scale to all their digits; TensorRT computes it in the kernel that rotates
            query, key = (
                g.op("RotaryEmbedding", g.split_heads(part, heads, c.head_dim), cosine, sine, position_ids)
                for part, heads in ((query, c.heads), (key, c.kv_heads))
            )
            # The scale goes into the query: only where nothing is left to scale ONNX Runtime multiplies a single query
            # with the cache as it lies there; otherwise it packs the cache for every head.
            query = g.mul(query, c.head_dim**-0.5)
        caches = []
        for kind, new in (("keys", key), ("values", g.split_heads(value, c.kv_heads, c.head_dim))):
            cache_shape: list[Dim] = ["B", c.kv_heads, "capacity", c.head_dim]
            cache = g.input(f"{kind}_{layer}", g.compute, cache_shape)
            updated = g.op("TensorScatter", cache, new, write, axis=2)
            g.output(updated, f"new_{kind}_{layer}", g.compute, cache_shape)
            caches.append(g.slice(updated, 0, visible, axis=2))
        attended = attend(g, query, caches[0], caches[1], mask, c.head_dim, scale=1.0)
        projected = linear(g.merge_heads(attended, c.heads, c.head_dim), f"{path}.self_attn.o_proj", precision=kept)
        x = g.residual(x, projected)
        normed = rms_norm(g, tensors, x, f"{path}.post_attention_layernorm", c.rms_eps)
        gate, up = g.ops(
            "Split", linear(normed, f"{path}.mlp.gate_proj", f"{path}.mlp.up_proj"), outputs=2, axis=-1, num_outputs=2
        )
        swish = g.mul(gate, g.op("Sigmoid", gate))
        x = g.residual(x, linear(g.mul(swish, up), f"{path}.mlp.down_proj"), name=f"layer_{layer}_out")

    # Only the asked-for position goes through the head: at 150 k vocabulary rows the others would cost more than a
    # layer.
    chosen = g.op("GatherND", x, last, batch_dims=1)  # (B, hidden)
    hidden = rms_norm(g, tensors, chosen, "norm", c.rms_eps)
    g.output(hidden, "hidden", FLOAT, ["B", c.hidden])
    g.output(linear(hidden, "lm_head", precision=kept), "logits", FLOAT, ["B", c.vocab])


def _rotary_tables(config: DecoderConfig, positions: int) -> list[tuple[str, np.ndarray]]:
    """cos and sin (positions, head_dim / 2), computed in float32 as the original does (spec §5)."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = (1.0 / np.float32(config.rope_theta) ** exponents).astype(np.float32)
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies[None, :]
    return [("rotary_cos", np.cos(angles)), ("rotary_sin", np.sin(angles))]
