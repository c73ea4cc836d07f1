"""Causal convolutions over channels-last sequences, written as one matrix product over shifted copies.

At the few dozen frames a streaming chunk has, a product over (B, T, k·C) runs at GEMM speed where a convolution kernel
does not, needs no transposition between it and the attention layers, and takes its left context as an ordinary input.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import INT64_MAX, GraphBuilder


def convolve(
    g: GraphBuilder,
    tensors: Tensors,
    x: ir.Value,
    layer: str,
    axis: int,
    inputs: int | None = None,
    name: str | None = None,
) -> ir.Value:
    """Convolve x with the checkpoint's `layer` without padding.

    Args:
        x: (B, T + kernel − 1, C_in) or (T + kernel − 1, B, C_in) float32, context included.
        layer: prefix of `.weight` (C_out, C_in, kernel) and `.bias` (C_out).
        axis: of time, 1 or 0.
        inputs: use only the first so many input channels (the rest is known to be zero).

    Returns:
        (B, T, C_out) or (T, B, C_out) float32.
    """
    outputs, channels, kernel = tensors.shape(f"{layer}.weight")
    used = inputs or channels

    def fill(view: np.ndarray) -> None:
        weight = tensors.read(f"{layer}.weight")[:, :used]  # (C_out, used, kernel)
        view[...] = weight.transpose(2, 1, 0).reshape(kernel * used, outputs)

    weight = g.stored(f"{layer}.weight", ir.DataType.FLOAT, (kernel * used, outputs), fill)
    if kernel > 1:
        # the last shift ends at the sequence's end, the others as many frames before it
        shifts = [g.slice(x, k, k + 1 - kernel if k + 1 < kernel else INT64_MAX, axis) for k in range(kernel)]
        x = g.concat(*shifts, axis=-1)
    bias = g.weight(f"{layer}.bias", tensors.read(f"{layer}.bias"))
    return g.add(g.op("MatMul", x, weight), bias, name=name)


def keep_context(g: GraphBuilder, extended: ir.Value, commit: ir.Value, frames: int, axis: int) -> ir.Value:
    """The context for the next call: `frames` frames of x before position `commit` of this call.

    Args:
        extended: (B, frames + T, C) or (frames + T, B, C), the old context and this call's frames.
        commit: int64 (1,), how many of this call's frames are final.
        axis: of time, 1 or 0.
    """
    return g.slice(extended, commit, g.add(commit, g.constant([frames])), axis)
