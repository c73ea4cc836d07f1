"""Attention of heads side by side in a batch, with a width that its kernels have."""

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
