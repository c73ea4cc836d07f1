"""Linear layers at each precision: as the graph computes, weight-only int8/int4 in blocks along the input, int8 with
activations quantised in every call, as a whole or row by row, products in fp8.

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
E4M3_MOST = 448.0  # the largest number of fp8's format E4M3
PRODUCT_SCALE = (
    2.0**-14
)  # of sums of products of two such numbers, so that they fit float16: the least it has to all digits
FINE_BLOCK = 32  # the same of int4 on a CPU: scales take a fifth of the bytes, and errors are a third less


class Precision(StrEnum):
    """How the weights of linear layers are stored and multiplied."""

    FP32 = "fp32"  # as the graph computes, narrower where that is
    INT8 = "int8"  # weight-only, one scale per 128 inputs; for a GPU one per output channel
    INT4 = "int4"  # weight-only, one scale per 32 inputs; for a GPU per 128
    DYNAMIC = "dynamic"  # int8 weights per output channel, activations quantised per call
    FP8 = "fp8"  # E4M3 weights per output channel, activations quantised per position
    MIXED = "mixed"  # of a language model, see `build_language_model`: int4 where it loses least, else int8
    W8A8 = "w8a8"  # int8 weights per output channel, activations quantised per row, which rows of others do not change


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
        if precision is Precision.W8A8:
            with g.precise():
                return self._rowwise(x, names, label, inputs, total)
        if by_channel:
            return self._channelwise(x, names, label, inputs, total)
        if precision is Precision.FP8:
            return self._fp8(x, names, label, inputs, total)
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
        weight, scale = self._per_channel(names, label, inputs, total, self.graph.current, ir.DataType.INT8)
        return self.graph.op("MatMul", x, self.graph.op("DequantizeLinear", weight, scale, axis=1))

    def _dynamic(self, x: ir.Value, names: Sequence[str], label: str, inputs: int, total: int) -> ir.Value:
        """int8 weights per output channel; x is quantised to uint8 as a whole, so x must belong to one session only."""
        g = self.graph
        weight, scale = self._per_channel(names, label, inputs, total, FLOAT, ir.DataType.INT8)
        quantised, x_scale, x_zero = g.ops("DynamicQuantizeLinear", x, outputs=3)
        product = g.op("Cast", g.op("MatMulInteger", quantised, weight, x_zero), to=int(FLOAT))
        return g.mul(product, g.mul(scale, x_scale))

    def _rowwise(self, x: ir.Value, names: Sequence[str], label: str, inputs: int, total: int) -> ir.Value:
        """int8 weights per output channel; every row of x is quantised to uint8 around 128 by its own greatest
        magnitude, so that the rows of a call do not depend on each other.

        The product of scales has a 1 in it that no optimiser can fold: with it ONNX Runtime converts and scales the
        integers in the product's own kernel.
        """
        g = self.graph
        weight, scale = self._per_channel(names, label, inputs, total, FLOAT, ir.DataType.INT8)
        rows = g.reshape(x, [-1, inputs])
        peaks = g.op("ReduceMax", g.op("Abs", rows), g.constant([1]), keepdims=0)
        steps = g.mul(g.op("Max", peaks, g.constant(float(np.finfo(np.float32).tiny) * 127)), 1 / 127)
        middle = g.op("Expand", g.constant(np.array(128, np.uint8)), g.op("Shape", steps))
        quantised = g.op("QuantizeLinear", rows, steps, middle, axis=0)
        product = g.op("MatMulInteger", quantised, weight, g.constant(np.array(128, np.uint8)))
        one = g.op("Cast", g.op("Min", g.op("Size", x), g.constant(np.array(1, np.int64))), to=int(FLOAT))
        scaled = g.mul(g.op("Cast", product, to=int(FLOAT)), g.mul(scale, one))
        scaled = g.mul(scaled, g.op("Unsqueeze", steps, g.constant([1])))
        shape = g.concat(g.op("Shape", x, start=0, end=-1), g.constant([total]), axis=0)
        return g.op("Reshape", scaled, shape)

    def _fp8(self, x: ir.Value, names: Sequence[str], label: str, inputs: int, total: int) -> ir.Value:
        """Both factors in E4M3: weights with a scale per output channel, activations with one per position.

        TensorRT takes constant scales alone. So every position is divided by its largest number first, and multiplied
        with it afterwards; both become part of the kernels before and after, and the product is one of fp8.
        """
        g = self.graph
        weight, scale = self._per_channel(names, label, inputs, total, g.current, ir.DataType.FLOAT8E4M3FN)
        with g.precise():
            largest = g.op("ReduceMax", g.op("Abs", x), g.constant([-1]), keepdims=1)
            largest = g.op("Max", largest, g.constant(float(np.finfo(np.float32).tiny)))
            zero = g.constant(np.zeros((), ml_dtypes.float8_e4m3fn))
            codes = g.op("QuantizeLinear", g.op("Div", x, largest), g.constant(1 / E4M3_MOST), zero)
        factors = g.op("DequantizeLinear", codes, g.constant(PRODUCT_SCALE))
        product = g.op("MatMul", factors, g.op("DequantizeLinear", weight, scale, axis=1))
        with g.precise():
            return g.mul(product, g.mul(largest, 1 / (E4M3_MOST * PRODUCT_SCALE)))

    def _per_channel(
        self, names: Sequence[str], label: str, inputs: int, total: int, stored: ir.DataType, kind: ir.DataType
    ) -> tuple[ir.Value, ir.Value]:
        """Weights (inputs, total), `kind` INT8 or FLOAT8E4M3FN, and their scales (total,) of the type `stored`."""
        g, whole = self.graph, kind == ir.DataType.INT8
        scales = np.empty(total, np.float32)

        def fill(view: np.ndarray) -> None:
            for column, rows in self.pieces(names):
                scale = np.maximum(np.abs(rows).max(axis=1), np.finfo(np.float32).tiny) / (127 if whole else E4M3_MOST)
                scale = _as_stored(scale, stored)
                codes = rows / scale[:, None]
                codes = np.clip(np.rint(codes), -128, 127) if whole else np.clip(codes, -E4M3_MOST, E4M3_MOST)
                view[:, column : column + len(rows)] = codes.astype(view.dtype).T
                scales[column : column + len(rows)] = scale

        name = f"{label}.weight_q8" if whole else f"{label}.weight_fp8"
        return g.stored(name, kind, (inputs, total), fill), g.weight(f"{label}.weight_scale", scales)


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
