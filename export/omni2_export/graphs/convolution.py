"""Causal convolutions over channels-last sequences, written as one matrix product.

At the few dozen frames a streaming chunk has, a product runs at GEMM speed where a convolution kernel does not, needs
no transposition between it and the attention layers, and takes its left context as an ordinary input. On the CPU it is
of shifted copies, (B, T, k·C). For a GPU every frame is multiplied with all k weights, (C, k·C_out), and what belongs
together is added: the kernel that makes the frames then need not wait for their neighbours, and adding is part of the
kernel behind.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import INT64_MAX, GraphBuilder
from omni2_export.graphs.linear import LinearWriter, Precision


class Unfolded:
    """Convolutions as linear layers over shifted copies; see `Tensors`.

    Args:
        tensors: holds `.weight` (C_out, C_in, kernel) and `.bias` (C_out) of every convolution.
        inputs: take only this number of input channels, the first ones (the rest is known to be zero).
    """

    def __init__(self, tensors: Tensors, inputs: int | None = None) -> None:
        self._tensors = tensors
        self._inputs = inputs

    def names(self) -> list[str]:
        """See `Tensors`."""
        return self._tensors.names()

    def dtype(self, name: str) -> np.dtype:
        """See `Tensors`."""
        return self._tensors.dtype(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """(C_out, kernel·C_in) of a weight."""
        outputs, channels, kernel = self._tensors.shape(name)
        return outputs, kernel * (self._inputs or channels)

    def read(self, name: str) -> np.ndarray:
        """See `Tensors`."""
        return self._tensors.read(name)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows (n, kernel·C_in) of a weight, the oldest shift's channels first."""
        rows = self._tensors.rows(name, start, stop)[:, : self._inputs]
        return rows.transpose(0, 2, 1).reshape(stop - start, -1)


def convolve(
    g: GraphBuilder,
    tensors: Tensors,
    x: ir.Value,
    layer: str,
    axis: int,
    inputs: int | None = None,
    name: str | None = None,
    silence: bool = False,
) -> ir.Value:
    """Convolve x with the checkpoint's `layer`.

    Args:
        x: (B, T + kernel − 1, C_in) or (T + kernel − 1, B, C_in) float32, context included.
        layer: prefix of `.weight` (C_out, C_in, kernel) and `.bias` (C_out).
        axis: of time, 1 or 0.
        inputs: use only this number of input channels, the first ones (the rest is known to be zero).
        silence: for a GPU: x is the T frames alone, and silence is before them.

    Returns:
        (B, T, C_out) or (T, B, C_out) float32.
    """
    kernel = tensors.shape(f"{layer}.weight")[2]
    if g.numerics.device and kernel > 1:
        return _add_shifted(g, tensors, x, layer, axis, inputs, name, silence)
    unfolded = _unfold(g, x, kernel, axis)
    return LinearWriter(g, Unfolded(tensors, inputs), Precision.FP32)(unfolded, layer, name=name)


def _add_shifted(
    g: GraphBuilder,
    tensors: Tensors,
    x: ir.Value,
    layer: str,
    axis: int,
    inputs: int | None,
    name: str | None,
    silence: bool,
) -> ir.Value:
    """Products of every frame with all weights, added up in float32 where they belong."""
    weight = tensors.read(f"{layer}.weight")[:, :inputs]
    outputs, channels, kernel = weight.shape
    side_by_side = weight.transpose(1, 2, 0).reshape(channels, kernel * outputs)
    products = g.op("MatMul", x, g.weight(f"{layer}.weight", side_by_side))
    with g.precise():
        total = g.weight(f"{layer}.bias", tensors.read(f"{layer}.bias"))
        for k in range(kernel):
            part = g.slice(products, k * outputs, (k + 1) * outputs, axis=-1)
            total = g.add((_delayed if silence else _shifted)(g, part, k, kernel, axis), total)
    if name:
        total.name = name
    return total


def _delayed(g: GraphBuilder, x: ir.Value, k: int, kernel: int, axis: int) -> ir.Value:
    """x, kernel − 1 − k frames later."""
    delay = kernel - 1 - k
    if not delay:
        return x
    return g.op("Pad", g.slice(x, 0, -delay, axis), g.constant([delay, 0]), None, g.constant([axis]))


def _shifted(g: GraphBuilder, x: ir.Value, k: int, kernel: int, axis: int) -> ir.Value:
    """As many frames from the k-th on as a convolution has outputs."""
    return g.slice(x, k, k + 1 - kernel if k + 1 < kernel else INT64_MAX, axis)


def _unfold(g: GraphBuilder, x: ir.Value, kernel: int, axis: int) -> ir.Value:
    """The frames each output frame is made of, side by side."""
    if kernel == 1:
        return x
    return g.concat(*(_shifted(g, x, k, kernel, axis) for k in range(kernel)), axis=-1)


def keep_context(g: GraphBuilder, extended: ir.Value, commit: ir.Value, frames: int, axis: int) -> ir.Value:
    """The context for the next call: `frames` frames of x before position `commit` of this call.

    Args:
        extended: (B, frames + T, C) or (frames + T, B, C), the old context and this call's frames.
        commit: int64 (1,), how many of this call's frames are final.
        axis: of time, 1 or 0.
    """
    if g.numerics.device:  # bounds that an input holds would make it one that TensorRT wants on the host
        return g.op("Gather", extended, g.add(commit, g.constant(list(range(frames)))), axis=axis)
    return g.slice(extended, commit, g.add(commit, g.constant([frames])), axis)
