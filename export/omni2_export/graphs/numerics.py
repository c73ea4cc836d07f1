"""Number formats of a graph: the float type it computes in, and the types operators take and give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
# Types between which the builder casts by itself; float64 is only ever asked for.
FLOATS = {
    ir.DataType.FLOAT: np.dtype(np.float32),
    ir.DataType.FLOAT16: np.dtype(np.float16),
    ir.DataType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
# Operators that move values and do not compute with them; those that write values into others' memory.
MOVING = frozenset({"Concat", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Pad", "Reshape", "Slice"})
MOVING |= {"Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
WRITING = frozenset({"ScatterElements", "ScatterND", "TensorScatter"})
# Operators whose output has one type for inputs of any type.
BOOLEAN = frozenset({"And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or"})
COUNTING = frozenset({"ArgMax", "ArgMin", "NonZero", "Shape", "Size"})
LIKE_INPUT = {"Where": 1, "QuantizeLinear": 2, "DequantizeLinear": 1}  # others' output is of their first input's type


@dataclass(frozen=True)
class Numerics:
    """What a graph computes in.

    Args:
        compute: type of float values outside islands of float32, of float weights and of caches: FLOAT, FLOAT16 or
            BFLOAT16. Other inputs and outputs of a graph are float32, also where it computes in less.
        doubles: use float64 where float32 loses digits that are needed. TensorRT has no float64.
        device: formulate for a GPU where that differs from what is fastest on the CPU. Caches are (rows, heads,
            capacity, width), the one layout that TensorRT updates in place; no shape hangs on the value of an input,
            which TensorRT would want on the host in every call; all convolutions are of images.
    """

    compute: ir.DataType = FLOAT
    doubles: bool = True
    device: bool = False


def operand_type(kind: str, types: Sequence[ir.DataType | None], current: ir.DataType) -> ir.DataType | None:
    """The type that all float operands of an operator are to have; None if they may be as they are.

    What only moves values keeps their type, what writes into memory takes the memory's, and the rest computes in
    `current`.
    """
    floats = [dtype for dtype in types if dtype in FLOATS]
    if not floats or kind in ("Cast", "Shape"):
        return None
    if kind in WRITING or (kind in MOVING and len(set(floats)) == 1):
        return floats[0]
    return current


def output_types(
    kind: str, types: Sequence[ir.DataType | None], attributes: Mapping[str, Any], outputs: int
) -> list[ir.DataType]:
    """The element types of an operator's outputs."""
    if kind == "DynamicQuantizeLinear":
        return [ir.DataType.UINT8, FLOAT, ir.DataType.UINT8]
    if kind == "Cast":
        made = ir.DataType(attributes["to"])
    elif kind == "ConstantOfShape":
        made = attributes["value"].dtype
    elif kind == "MatMulInteger":
        made = ir.DataType.INT32
    elif kind in BOOLEAN:
        made = ir.DataType.BOOL
    elif kind in COUNTING:
        made = INT64
    else:
        followed = types[LIKE_INPUT.get(kind, 0)]
        assert followed is not None, f"{kind} lacks the input its type follows from"
        made = followed
    return [made] * outputs
