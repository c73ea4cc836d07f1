"""Matrix products in float32 for results much smaller than their terms: what float64 is used for where it exists."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from omni2_export.graphs.builder import GraphBuilder, in_float32

EXACT = 2**24  # integers of up to this magnitude add up exactly in float32, in any order
WEIGHT_BITS = 8  # of a weight's coarse part
SMALLEST = 1e-20  # stands for the largest magnitude where all values are zero


@in_float32
def split_product(g: GraphBuilder, x: ir.Value, weight: np.ndarray, name: str) -> ir.Value:
    """x · weight with the rounding errors of its sums some hundred times smaller than float32's.

    Both factors are taken apart into small integers and a rest: x = s·c + r, W = t·D + Q. The sums of c·D are exact;
    the others, s·c·Q + r·W, are rounded, and smaller by as much as the integers are large. s has so few digits that
    s·c and r are exact too.

    Args:
        x: (…, K) float32.
        weight: (K, N), float64 for the most digits.
        name: what its parts are called in the weight file.

    Returns:
        (…, N) float32.
    """
    unit = float(2.0 ** (np.ceil(np.log2(np.abs(weight).max())) - WEIGHT_BITS))
    coarse = np.rint(weight / unit)
    # of the integers c, which the step's rounding may make larger by its relative error of 2⁻⁸
    top = float(np.floor(EXACT / np.abs(coarse).sum(axis=0).max() * (1 - 2.0**-7) - 1))
    # of each row by itself: what a session gets must not depend on who else is in the call
    largest = g.op("Max", g.op("ReduceMax", g.op("Abs", x), g.constant([-1]), keepdims=1), g.constant(SMALLEST))
    step = g.rounded(g.op("Div", largest, g.constant(top)), ir.DataType.BFLOAT16)
    integers = g.op("Round", g.op("Div", x, step))
    exact = g.op("MatMul", integers, g.weight(f"{name}.coarse", coarse))
    kept = g.mul(integers, step)
    parts = g.concat(kept, g.op("Sub", x, kept), axis=-1)
    rest = g.op("MatMul", parts, g.weight(f"{name}.rest", np.concatenate([weight - unit * coarse, weight])))
    return g.add(g.mul(exact, g.mul(step, unit)), rest)
