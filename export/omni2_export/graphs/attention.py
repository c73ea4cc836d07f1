"""Attention over all heads at once, in a type its width allows."""

from __future__ import annotations

from contextlib import nullcontext

import onnx_ir as ir

from omni2_export.graphs.builder import FLOAT, GraphBuilder

HALF_WIDTHS = 8  # TensorRT-RTX 1.7 compiles attention of half types for multiples of this head width only


def attend(
    g: GraphBuilder, query: ir.Value, key: ir.Value, value: ir.Value, mask: ir.Value | None, width: int, **how: object
) -> ir.Value:
    """softmax(scale · q·kᵀ, mask) · v.

    Args:
        query, key, value: of the heads side by side, or heads first; see ONNX's `Attention`.
        mask: boolean, True where a query may look, or to be added to the scores.
        width: of a head.
        how: attributes of `Attention`.

    Returns:
        Laid out as the query; float32 where a GPU's narrower types cannot have this width.
    """
    narrow = g.numerics.device and g.current != FLOAT and width % HALF_WIDTHS
    with g.precise() if narrow else nullcontext():
        return g.op("Attention", query, key, value, *([] if mask is None else [mask]), **how)
