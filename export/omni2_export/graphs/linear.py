"""Linear layers at each precision: as the graph computes, weight-only int8/int4 in blocks along the input, dynamically
quantised int8.

A layer y = x Wᵀ + b is stored as W in ONNX's (input, output) order. Several layers that read the same x may be stored
as one; their label is their names joined by "+".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

import ml_dtypes
import numpy as np
import onnx_ir as ir

from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import FLOAT, GraphBuilder
from omni2_export.graphs.numerics import FLOATS

ROWS_AT_ONCE = 1 << 22  # elements read from the checkpoint at once, so that a layer of any size stays cheap
BLOCK = 128  # weights per scale
FINE_BLOCK = 32  # the same of int4 on a CPU: scales take a fifth of the bytes, and errors are a third less


class Precision(StrEnum):
    """How the weights of linear layers are stored and multiplied."""

    FP32 = "fp32"  # as the graph computes, narrower where that is
    INT8 = "int8"  # weight-only, one scale per 128 inputs; for a GPU one per output channel
    INT4 = "int4"  # weight-only, one scale per 32 inputs; for a GPU per 128
    DYNAMIC = "dynamic"  # int8 weights per output channel, activations quantised per call


def block_size(inputs: int, most: int = BLOCK) -> int | None:
    """Weights per scale for a layer of `inputs` columns: the largest power of two ≤ `most` that divides it, at least
    16."""
    block = most
    while block >= 16:
        if inputs % block == 0:
            return block
        block //= 2
    return None


class LinearWriter:
    """Writes the linear layers of one module at one precision.

    Args:
        graph: the graph under construction.
        tensors: the module's weights, torch layout (outputs, inputs).
        precision: for every layer but those named otherwise in a call.
    """

    def __init__(self, graph: GraphBuilder, tensors: Tensors, precision: Precision) -> None:
        self.graph = graph
        self.tensors = tensors
        self.precision = precision
        self._names = frozenset(tensors.names())

    def __call__(
        self,
        x: ir.Value,
        *names: str,
        precision: Precision | None = None,
        name: str | None = None,
    ) -> ir.Value:
        """Apply the layers `names` (their outputs side by side) to x (…, inputs).

        Biases are taken where the checkpoint has them; where only some of the joined layers have one, the others get
        zeros.
        """
        g = self.graph
        widths = [self.tensors.shape(f"{layer}.weight") for layer in names]
        inputs = int(np.prod(widths[0][1:]))
        outputs = [width[0] for width in widths]
        label = "+".join(names)
        y = self._multiply(x, names, label, inputs, outputs, precision or self.precision)
        present = [f"{layer}.bias" in self._names for layer in names]
        if any(present):
            bias = np.concatenate(
                [
                    self.tensors.read(f"{layer}.bias") if has else np.zeros(width, np.float32)
                    for layer, has, width in zip(names, present, outputs, strict=True)
                ]
            )
            y = g.add(y, g.weight(f"{label}.bias", bias))
        if name:
            y.name = name
        return y

    def _multiply(
        self, x: ir.Value, names: Sequence[str], label: str, inputs: int, outputs: list[int], precision: Precision
    ) -> ir.Value:
        g = self.graph
        total = sum(outputs)
        fine = precision is Precision.INT4 and not g.numerics.device
        block = block_size(inputs, FINE_BLOCK if fine else BLOCK)
        if precision is Precision.INT4 and total % 2:
            precision = Precision.INT8  # two int4 values share a byte, and a row must not begin inside one
        by_channel = g.numerics.device and precision is Precision.INT8
        if precision in (Precision.INT8, Precision.INT4) and block is None and not by_channel:
            precision = Precision.FP32
        if precision is Precision.FP32:
            weight = g.stored(f"{label}.weight", g.current, (inputs, total), lambda view: self._fill(view, names))
            return g.op("MatMul", x, weight)
        if precision is Precision.DYNAMIC:
            with g.precise():
                return self._dynamic(x, names, label, inputs, total)
        if by_channel:
            return self._channelwise(x, names, label, inputs, total)
        assert block is not None
        return self._blockwise(x, names, label, inputs, total, block, 8 if precision is Precision.INT8 else 4)

    def pieces(self, names: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first output column, rows (n, inputs) float32) of the joined layers, a bounded piece at a time."""
        column = 0
        for layer in names:
            shape = self.tensors.shape(f"{layer}.weight")
            step = max(2, ROWS_AT_ONCE // int(np.prod(shape[1:])) // 2 * 2)
            for start in range(0, shape[0], step):
                stop = min(start + step, shape[0])
                rows = self.tensors.rows(f"{layer}.weight", start, stop)
                yield column + start, rows.reshape(stop - start, -1)
            column += shape[0]

    def _fill(self, view: np.ndarray, names: Sequence[str]) -> None:
        for column, rows in self.pieces(names):
            view[:, column : column + len(rows)] = rows.T

    def _blockwise(
        self, x: ir.Value, names: Sequence[str], label: str, inputs: int, total: int, block: int, bits: int
    ) -> ir.Value:
        """Symmetric blocks along the inputs: `DequantizeLinear → MatMul`, which ONNX Runtime turns into one int
        kernel."""
        g = self.graph
        top = 127 if bits == 8 else 7
        scales = np.empty((inputs // block, total), np.float32)

        def fill(view: np.ndarray) -> None:
            packed = np.empty((inputs, total), np.int8) if bits == 4 else view
            for column, rows in self.pieces(names):
                blocks = rows.reshape(len(rows), -1, block)  # (n, inputs/block, block)
                scale = _as_stored(_block_scales(blocks, top, bits), g.current)
                quantised = np.clip(np.rint(blocks / scale[..., None]), -top - 1, top).astype(np.int8)
                packed[:, column : column + len(rows)] = quantised.reshape(len(rows), -1).T
                scales[:, column : column + len(rows)] = scale.T
            if bits == 4:
                flat = packed.reshape(-1).view(np.uint8)
                np.bitwise_or(flat[0::2] & 0xF, flat[1::2] << 4, out=view)

        dtype = ir.DataType.INT8 if bits == 8 else ir.DataType.INT4
        weight = g.stored(f"{label}.weight_q{bits}", dtype, (inputs, total), fill)
        scale = g.weight(f"{label}.weight_scale", scales)
        return g.op("MatMul", x, g.op("DequantizeLinear", weight, scale, axis=0, block_size=block))

    def _channelwise(self, x: ir.Value, names: Sequence[str], label: str, inputs: int, total: int) -> ir.Value:
        """int8 weights per output channel, for TensorRT: it fuses such scales into the product, and writes weights in
        blocks of int8 out in 16 bits in every call (see `omni2_export.tensorrt.lowered`)."""
        weight, scale = self._per_channel(names, label, inputs, total, self.graph.current)
        return self.graph.op("MatMul", x, self.graph.op("DequantizeLinear", weight, scale, axis=1))

    def _dynamic(self, x: ir.Value, names: Sequence[str], label: str, inputs: int, total: int) -> ir.Value:
        """int8 weights per output channel; x is quantised to uint8 as a whole, so x must belong to one session only."""
        g = self.graph
        weight, scale = self._per_channel(names, label, inputs, total, FLOAT)
        quantised, x_scale, x_zero = g.ops("DynamicQuantizeLinear", x, outputs=3)
        product = g.op("Cast", g.op("MatMulInteger", quantised, weight, x_zero), to=int(FLOAT))
        return g.mul(product, g.mul(scale, x_scale))

    def _per_channel(
        self, names: Sequence[str], label: str, inputs: int, total: int, stored: ir.DataType
    ) -> tuple[ir.Value, ir.Value]:
        """int8 weights (inputs, total), and their scales (total,) in the type they are stored in."""
        g = self.graph
        scales = np.empty(total, np.float32)

        def fill(view: np.ndarray) -> None:
            for column, rows in self.pieces(names):
                scale = np.maximum(np.abs(rows).max(axis=1), np.finfo(np.float32).tiny) / 127
                scale = _as_stored(scale, stored)
                codes = np.clip(np.rint(rows / scale[:, None]), -128, 127)
                view[:, column : column + len(rows)] = codes.astype(np.int8).T
                scales[column : column + len(rows)] = scale

        weight = g.stored(f"{label}.weight_q8", ir.DataType.INT8, (inputs, total), fill)
        return weight, g.weight(f"{label}.weight_scale", scales)


def _as_stored(scales: np.ndarray, dtype: ir.DataType) -> np.ndarray:
    """Positive scales rounded to the type they are stored in, so that weights are divided by what multiplies them."""
    storage = FLOATS[dtype]
    stored: np.ndarray = np.maximum(scales.astype(storage), ml_dtypes.finfo(storage).smallest_subnormal)
    return stored.astype(np.float32)


def _block_scales(blocks: np.ndarray, top: int, bits: int) -> np.ndarray:
    """One positive scale per block (n, blocks): maximum magnitude, or for int4 the candidate with least squared
    error."""
    largest = np.abs(blocks).max(axis=-1)
    largest = np.where(largest == 0, 1, largest).astype(np.float32)
    if bits == 8:
        return largest / top
    best, best_error = largest / top, np.full(largest.shape, np.inf, np.float32)
    for shrink in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75):
        scale = largest * np.float32(shrink / top)
        error = np.square(np.clip(np.rint(blocks / scale[..., None]), -8, 7) * scale[..., None] - blocks).sum(axis=-1)
        better = error < best_error
        best, best_error = np.where(better, scale, best), np.where(better, error, best_error)
    return best
