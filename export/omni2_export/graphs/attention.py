"""Attention of heads side by side in a batch: as one operator, and written out as products."""

from __future__ import annotations

import onnx_ir as ir

from omni2_export.graphs.builder import FLOAT, GraphBuilder

HALF_WIDTHS = 8  # TensorRT-RTX 1.7 compiles attention of half types for multiples of this head width only


def attend(
    g: GraphBuilder, query: ir.Value, key: ir.Value, value: ir.Value, mask: ir.Value | None, width: int, scale: float
) -> ir.Value:
    """softmax(scale · q·kᵀ, mask) · v. In what type scores are kept is the kernel's business: TensorRT takes no
    `softmax_precision`.

    Args:
        query, key, value: (B, heads, positions, width).
        mask: boolean, True where a query may look, or to be added to the scores.
        width: of a head.
        scale: of the scores.

    Returns:
        (B, heads, queries, width).
    """
    inputs = [query, key, value]
    surplus = -width % HALF_WIDTHS if g.numerics.device and g.current != FLOAT else 0
    if surplus:  # zeros change no score, and what they add to the values is cut off again
        inputs = [g.op("Pad", part, g.constant([0, surplus]), None, g.constant([3])) for part in inputs]
    attended = g.op("Attention", *inputs, *([] if mask is None else [mask]), scale=scale)
    return g.slice(attended, 0, width, axis=3) if surplus else attended


def attend_by_products(
    g: GraphBuilder,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    mask: ir.Value | None = None,
    bias: ir.Value | None = None,
    leading: int = 1,
) -> ir.Value:
    """softmax(q·kᵀ, mask) · v in matrix products, the softmax in float32.

    TensorRT-RTX 1.7 makes one kernel of it too, and that one reads heads out of the products before it and writes what
    the product behind it reads. With `Attention` each of the four is copied by a kernel of its own, and seven more make
    a list of tiles of the mask (`bench kernels`).

    Args:
        query: (heads, queries, width), scaled.
        key, value: (heads, positions, width).
        mask: (1, queries, positions) bool, True where a query may look; all of them without it.
        bias: (heads, queries, positions), added to the scores.
        leading: axes before that of positions, where there are more than heads.

    Returns:
        (heads, queries, width).
    """
    scores = g.op("MatMul", query, g.transpose(key, *range(leading), leading + 1, leading))
    with g.precise():
        if bias is not None:
            scores = g.add(scores, bias)
        if mask is not None:
            scores = g.op("Where", mask, scores, g.constant(g.lowest))
        weights = g.op("Softmax", scores, axis=-1)
    return g.op("MatMul", weights, value)
