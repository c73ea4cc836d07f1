"""Qwen2 decoder with a static KV cache: one graph for prefill and decode, for the language model and the speech LM
(spec §5).

Every row of the batch is a slot with a length of its own: the caller says where its new positions are written and what
each may see.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from omni2_engine.model.config import DecoderConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.attention import attend, attend_by_products
from omni2_export.graphs.builder import BOOL, FLOAT, INT64, Dim, GraphBuilder
from omni2_export.graphs.chosen_rows import ChosenRows
from omni2_export.graphs.linear import LinearWriter, Precision
from omni2_export.graphs.norms import rms_norm

FIRST_LAYERS = 1 / 4  # of all layers: kept in int8 where gates and up-projections of the others are int4


def build_language_model(
    graph: GraphBuilder,
    config: DecoderConfig,
    tensors: Tensors,
    precision: Precision,
    positions: int,
    scored: Sequence[int] | None = None,
) -> None:
    """Add a Qwen2 decoder to `graph`.

    Inputs:
        embeds (B, S, hidden) float32; positions (B, S) int64; write (B) int64, the first cache position written;
        last (B, 1) int64, which of the S positions gives logits; mask (B, 1, S, T) bool, True where a query may look,
        T ≤ capacity; keys_i, values_i (B, kv_heads, capacity, head_dim) per layer, of the type the graph computes in;
        for a GPU keys_values_i (B, kv_heads, capacity, 2·head_dim) instead of both.
    Outputs:
        logits (B, vocab) float32; hidden (B, hidden) float32 after the final norm, both at `last`;
        new_… caches, to be bound to the inputs' own memory.

    Args:
        precision: of the linear layers. "mixed", which int4 is on a CPU: only gates and up-projections are stored in
            int4, and those of the first layers are not, whose errors all others pass on; the rest is int8. With fp8 the
            head is int8: as many bytes to read, and its inputs keep their digits.
        positions: length of the rotary tables: no cache may be longer.
        scored: ids that the head scores, ascending; logits of others are minus infinity. All of them if None.
    """
    g, c = graph, config
    if precision is Precision.MIXED or (precision is Precision.INT4 and not g.numerics.device):
        kept, precision = Precision.INT8, Precision.INT4
    else:
        kept = precision
    linear = LinearWriter(g, tensors, kept)
    head = Precision.INT8 if precision is Precision.FP8 else kept
    first = round(c.layers * FIRST_LAYERS)
    x = g.input("embeds", FLOAT, ["B", "S", c.hidden])
    position_ids = g.input("positions", INT64, ["B", "S"])
    write = g.input("write", INT64, ["B"])
    last = g.input("last", INT64, ["B", 1])
    mask = g.input("mask", BOOL, ["B", 1, "S", "T"])
    caches = _SharedCaches(g, c, mask, write) if g.numerics.device else _Caches(g, c, mask, write)
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
        attended = caches.attend(layer, query, key, g.split_heads(value, c.kv_heads, c.head_dim))
        projected = linear(g.merge_heads(attended, c.heads, c.head_dim), f"{path}.self_attn.o_proj", precision=kept)
        x = g.residual(x, projected)
        normed = rms_norm(g, tensors, x, f"{path}.post_attention_layernorm", c.rms_eps)
        feed = kept if layer < first else precision
        both = linear(normed, f"{path}.mlp.gate_proj", f"{path}.mlp.up_proj", precision=feed)
        gate, up = g.ops("Split", both, outputs=2, axis=-1, num_outputs=2)
        swish = g.mul(gate, g.op("Sigmoid", gate))
        inner = g.mul(swish, up)
        x = g.residual(x, linear(inner, f"{path}.mlp.down_proj", precision=kept), name=f"layer_{layer}_out")

    # Only the asked-for position goes through the head: at 150 k vocabulary rows the others would cost more than a
    # layer.
    chosen = g.op("GatherND", x, last, batch_dims=1)  # (B, hidden)
    hidden = rms_norm(g, tensors, chosen, "norm", c.rms_eps)
    g.output(hidden, "hidden", FLOAT, ["B", c.hidden])
    if scored is None:
        logits = linear(hidden, "lm_head", precision=head)
    else:
        logits = _scored(g, tensors, c.vocab, hidden, scored, head)
    g.output(logits, "logits", FLOAT, ["B", c.vocab])


def _scored(
    g: GraphBuilder, tensors: Tensors, vocab: int, hidden: ir.Value, scored: Sequence[int], precision: Precision
) -> ir.Value:
    """Logits (B, vocab) of some ids alone."""
    scores = LinearWriter(g, ChosenRows(tensors, "lm_head.weight", scored), precision)(hidden, "lm_head")
    rows = g.size(hidden, 0)
    with g.precise():
        unscored = g.op("Expand", g.constant(-np.inf), g.concat(rows, g.constant([vocab]), axis=0))
        ids = g.op("Expand", g.constant(np.asarray([scored], np.int64)), g.op("Shape", scores))
        return g.op("ScatterElements", unscored, ids, scores, axis=1)


class _Caches:
    """Attention over a cache of keys and one of values for each layer.

    Args:
        g: the graph.
        c: the model's dimensions.
        mask, write: its inputs.
    """

    def __init__(self, g: GraphBuilder, c: DecoderConfig, mask: ir.Value, write: ir.Value) -> None:
        self.g, self.c, self.mask, self._write = g, c, mask, write
        self._visible = g.size(mask, 3)

    def attend(self, layer: int, query: ir.Value, key: ir.Value, value: ir.Value) -> ir.Value:
        """Attention of scaled queries (B, heads, S, head_dim) over new keys and values (B, kv_heads, S, head_dim) and
        those held: (B, heads, S, head_dim)."""
        seen = [self.updated(f"{kind}_{layer}", new) for kind, new in (("keys", key), ("values", value))]
        return attend(self.g, query, seen[0], seen[1], self.mask, self.c.head_dim, scale=1.0)

    def updated(self, name: str, new: ir.Value, width: int = 1) -> ir.Value:
        """The visible positions of a cache with new ones in it; `width` is a multiple of head_dim."""
        g, c = self.g, self.c
        shape: list[Dim] = ["B", c.kv_heads, "capacity", width * c.head_dim]
        updated = g.op("TensorScatter", g.input(name, g.compute, shape), new, self._write, axis=2)
        g.output(updated, f"new_{name}", g.compute, shape)
        return g.slice(updated, 0, self._visible, axis=2)


class _SharedCaches(_Caches):
    """Attention over one cache for each layer, a position's key and value side by side; for a GPU: see
    `attend_by_products`.

    The queries that share a key-value head are rows of one product.
    """

    def __init__(self, g: GraphBuilder, c: DecoderConfig, mask: ir.Value, write: ir.Value) -> None:
        super().__init__(g, c, mask, write)
        groups = c.heads // c.kv_heads
        spread = g.op("Expand", g.op("Unsqueeze", mask, g.constant([2])), g.constant([1, 1, groups, 1, 1]))
        sizes = (g.size(mask, 0), g.constant([1]), g.op("Mul", g.size(mask, 2), g.constant([groups])), self._visible)
        self.mask = g.op("Reshape", spread, g.concat(*sizes, axis=0))  # (B, 1, groups·S, T)

    def attend(self, layer: int, query: ir.Value, key: ir.Value, value: ir.Value) -> ir.Value:
        """See `_Caches.attend`."""
        g, c, width = self.g, self.c, self.c.head_dim
        seen = self.updated(f"keys_values_{layer}", g.concat(key, value, axis=3), 2)
        parts = [g.slice(seen, part * width, (part + 1) * width, axis=3) for part in (0, 1)]
        rows = g.reshape(query, [0, c.kv_heads, -1, width])
        attended = attend_by_products(g, rows, parts[0], parts[1], self.mask, leading=2)
        return g.reshape(attended, [0, c.heads, -1, width])


def _rotary_tables(config: DecoderConfig, positions: int) -> list[tuple[str, np.ndarray]]:
    """cos and sin (positions, head_dim / 2), computed in float32 as the original does (spec §5)."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = (1.0 / np.float32(config.rope_theta) ** exponents).astype(np.float32)
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies[None, :]
    return [("rotary_cos", np.cos(angles)), ("rotary_sin", np.sin(angles))]
