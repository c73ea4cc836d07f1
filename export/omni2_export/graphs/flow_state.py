"""What the velocity network keeps of a turn from call to call, in the layout that its device computes fastest in.

Causal convolutions read a few frames before this call's, attention the keys and values of finished blocks. Both are
updated in every call. A turn's first block has nothing before it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import onnx_ir as ir

from omni2_engine.model.config import EstimatorConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.attention import attend_by_products
from omni2_export.graphs.builder import BOOL, INT64, Dim, GraphBuilder
from omni2_export.graphs.convolution import convolve, keep_context
from omni2_export.graphs.linear import LinearWriter


class EstimatorState(Protocol):
    """The state of one graph. Layers take their parts of it in the order in which they are added.

    The heads of both guidance rows are side by side: what one row knows the other never sees, as two groups of heads of
    one sequence.
    """

    def convolve(self, x: ir.Value, tensors: Tensors, layer: str, inputs: int | None) -> ir.Value:
        """A causal convolution of x (t, 2, channels): (t, 2, outputs); see `convolution.convolve`."""
        ...

    def attend(self, normed: ir.Value, path: str) -> ir.Value:
        """Attention of this call's frames, of a normed x (t, 2, width), with the weights of `path`: (t, 2,
        heads·head_dim)."""
        ...

    def keep(self) -> None:
        """Add the outputs that are the next call's contexts, behind the last layer that has one."""
        ...


class NoState:
    """Of a turn's first block while it is not finished: silence before it, and nothing that a later call would read.

    Args:
        g: the graph, which gets the input mask (1, 1, t, t).
        c: the network's dimensions.
        linear: writes products.
    """

    def __init__(self, g: GraphBuilder, c: EstimatorConfig, linear: LinearWriter) -> None:
        self._g, self._c, self._linear = g, c, linear
        self._mask = g.op("Squeeze", g.input("mask", BOOL, [1, 1, "t", "t"]), g.constant([0]))

    def convolve(self, x: ir.Value, tensors: Tensors, layer: str, inputs: int | None) -> ir.Value:
        """See `EstimatorState.convolve`."""
        return convolve(self._g, tensors, x, layer, 0, inputs, silence=True)

    def attend(self, normed: ir.Value, path: str) -> ir.Value:
        """See `EstimatorState.attend`."""
        g, heads, width = self._g, 2 * self._c.heads, self._c.head_dim
        query, key, value = (
            g.transpose(g.reshape(self._linear(normed, f"{path}.to_{part}"), [-1, heads, width]), 1, 0, 2)
            for part in "qkv"
        )
        attended = attend_by_products(g, g.mul(query, width**-0.5), key, value, self._mask)
        return g.reshape(g.transpose(attended, 1, 0, 2), [-1, 2, self._c.heads * width])

    def keep(self) -> None:
        """See `EstimatorState.keep`."""


class _StepState:
    """Contexts and the places in the caches, of either layout.

    Args:
        g: the graph, which gets the inputs mask (1, 1, t, T), write, commit and contexts.
        c: the network's dimensions.
        context: frames of left context.
        widths: input channels of every causal convolution in the order they run.
        caches: type of keys and values.
    """

    def __init__(
        self, g: GraphBuilder, c: EstimatorConfig, context: int, widths: list[int], caches: ir.DataType
    ) -> None:
        self._g, self._c, self._caches = g, c, caches
        self._mask = g.input("mask", BOOL, [1, 1, "t", "T"])
        self._write = g.input("write", INT64, [1])
        self._commit = g.input("commit", INT64, [1])
        self._context = context
        contexts = g.input("contexts", g.compute, self._shape(sum(widths)))
        self._contexts = iter(g.ops("Split", contexts, g.constant(widths), outputs=len(widths), axis=-1))
        self._new: list[ir.Value] = []
        self._block = 0
        self._channels = sum(widths)

    def _shape(self, channels: int) -> list[Dim]:
        return [self._context, 2, channels]

    def convolve(self, x: ir.Value, tensors: Tensors, layer: str, inputs: int | None) -> ir.Value:
        """See `EstimatorState.convolve`."""
        extended = self._g.concat(next(self._contexts), x, axis=0)
        self._new.append(keep_context(self._g, extended, self._commit, self._context, axis=0))
        return convolve(self._g, tensors, extended, layer, 0, inputs)

    def keep(self) -> None:
        """See `EstimatorState.keep`."""
        g = self._g
        g.output(g.concat(*self._new, axis=-1), "new_contexts", g.compute, self._shape(self._channels))

    def _updated(self, kind: str, new: ir.Value, shape: list[Dim], axis: int) -> ir.Value:
        """This block's cache with new frames in it; `axis` is that of time."""
        g, name = self._g, f"{kind}_{self._block}"
        updated = g.op("TensorScatter", g.input(name, self._caches, shape), new, self._write, axis=axis)
        g.output(updated, f"new_{name}", self._caches, shape)
        return updated


class FrameFirst(_StepState):
    """Caches keys_i, values_i (1, T, 2·heads·head_dim), for the CPU: their first frames are one piece of memory, which
    is bound as it is, and no head is transposed.

    Args:
        g, c, context, widths, caches: as of `_StepState`.
        linear: writes products.
    """

    def __init__(
        self,
        g: GraphBuilder,
        c: EstimatorConfig,
        context: int,
        widths: list[int],
        linear: LinearWriter,
        caches: ir.DataType,
    ) -> None:
        super().__init__(g, c, context, widths, caches)
        self._linear = linear

    def attend(self, normed: ir.Value, path: str) -> ir.Value:
        """See `EstimatorState.attend`."""
        g, heads, width = self._g, 2 * self._c.heads, self._c.head_dim
        # three products: side by side in one they would have to be taken apart again
        query, key, value = (
            g.reshape(self._linear(normed, f"{path}.to_{part}"), [1, -1, heads * width]) for part in "qkv"
        )
        shape: list[Dim] = [1, "T", heads * width]
        caches = [self._updated("keys", key, shape, 1), self._updated("values", value, shape, 1)]
        self._block += 1
        query = g.mul(query, width**-0.5)
        attended = g.op("Attention", query, *caches, self._mask, scale=1.0, q_num_heads=heads, kv_num_heads=heads)
        return g.reshape(attended, [-1, 2, self._c.heads * width])


class HeadFirst(_StepState):
    """Caches keys_values_i (1, 2·heads, capacity, 2·head_dim), for a GPU, of which the first T frames are read.

    A frame's key and value lie side by side, and one product makes them and the query, head by head: so one kernel
    writes a cache, one reads it, and attention takes the query as it is (`bench kernels`).

    Args:
        g, c, context, widths: as of `_StepState`.
        tensors: the weights.
    """

    def __init__(self, g: GraphBuilder, c: EstimatorConfig, context: int, widths: list[int], tensors: Tensors) -> None:
        super().__init__(g, c, context, widths, g.compute)
        self._tensors = tensors
        self._seen = g.size(self._mask, 3)
        self._flat_mask = g.op("Squeeze", self._mask, g.constant([0]))

    def attend(self, normed: ir.Value, path: str) -> ir.Value:
        """See `EstimatorState.attend`."""
        g, heads, width = self._g, 2 * self._c.heads, self._c.head_dim
        joined = g.reshape(self._joined(normed, path), [-1, heads, 3 * width])
        query = g.transpose(g.slice(joined, 0, width, axis=2), 1, 0, 2)
        new = g.transpose(g.slice(joined, width, 3 * width, axis=2), 1, 0, 2)
        shape: list[Dim] = [1, heads, "capacity", 2 * width]
        cache = self._updated("keys_values", g.op("Unsqueeze", new, g.constant([0])), shape, 2)
        self._block += 1
        seen = g.slice(g.op("Squeeze", cache, g.constant([0])), 0, self._seen, axis=1)
        key, value = g.slice(seen, 0, width, axis=2), g.slice(seen, width, 2 * width, axis=2)
        attended = attend_by_products(g, query, key, value, self._flat_mask)
        return g.reshape(g.transpose(attended, 1, 0, 2), [-1, 2, self._c.heads * width])

    def _joined(self, normed: ir.Value, path: str) -> ir.Value:
        """(t, 2, heads·3·head_dim): query, key and value of every head, the query scaled by a product over all three,
        which TensorRT computes with the first; scaling the query alone is a kernel of its own."""
        g, width = self._g, self._c.head_dim
        parts = [self._tensors.read(f"{path}.to_{part}.weight") for part in "qkv"]  # (heads·head_dim, inputs) each
        weight = np.stack([part.reshape(self._c.heads, width, -1) for part in parts], axis=1)
        weight = weight.reshape(-1, weight.shape[-1]).T
        scale = np.ones((self._c.heads, 3, width), np.float32)
        scale[:, 0] = width**-0.5
        product = g.op("MatMul", normed, g.weight(f"{path}.to_qkv.weight", weight))
        return g.mul(product, g.weight("attention_scale", scale.reshape(-1)))
