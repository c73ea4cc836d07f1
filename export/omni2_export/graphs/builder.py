"""Builds one ONNX graph by hand: opset 24 standard operators, weights in an external file, names that say what a value
is.

`GraphBuilder` is what every module in this folder is written with. Nothing is traced, so what stands in the module is
what runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from omni2_export.graphs.weights import WeightWriter

OPSET = 24
IR_VERSION = 11
FLOAT, BOOL, INT64, INT32, DOUBLE = (
    ir.DataType.FLOAT,
    ir.DataType.BOOL,
    ir.DataType.INT64,
    ir.DataType.INT32,
    ir.DataType.DOUBLE,
)
Dim = int | str
INT64_MAX = 2**63 - 1


class GraphBuilder:
    """One graph under construction.

    Args:
        name: the graph's name.
        writer: where its weights go.
    """

    def __init__(self, name: str, writer: WeightWriter) -> None:
        self.name = name
        self.writer = writer
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._counter = 0

    # -- the graph's borders ---------------------------------------------------------------------------------------

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[Dim]) -> ir.Value:
        """Declare a graph input; string dimensions are symbolic."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self._inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[Dim]) -> None:
        """Declare `value` a graph output called `name`."""
        if value.name != name:
            value = self.op("Identity", value) if value.is_graph_input() or value.name in self._initializers else value
            value.name = name
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
        self._outputs.append(value)

    def save(self, path: Path) -> None:
        """Write the graph to `path`; its weights are beside it already."""
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports={"": OPSET},
            name=self.name,
        )
        model = ir.Model(graph, ir_version=IR_VERSION, producer_name="omni2-engine")
        path.write_bytes(ir.to_proto(model).SerializeToString())

    # -- nodes and constants ---------------------------------------------------------------------------------------

    def op(self, kind: str, *inputs: ir.Value | None, name: str | None = None, **attributes: Any) -> ir.Value:
        """Add a node with one output, called `name` if given."""
        return self.ops(kind, *inputs, outputs=1, names=[name], **attributes)[0]

    def ops(
        self, kind: str, *inputs: ir.Value | None, outputs: int, names: Sequence[str | None] = (), **attributes: Any
    ) -> list[ir.Value]:
        """Add a node with several outputs."""
        self._counter += 1
        values = []
        for index in range(outputs):
            given = names[index] if index < len(names) else None
            values.append(ir.Value(name=given or f"{kind}_{self._counter}" + (f"_{index}" if outputs > 1 else "")))
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self._nodes.append(ir.node(kind, inputs, attributes, outputs=values, name=f"{kind}_{self._counter}"))
        return values

    def constant(self, value: np.ndarray | Sequence[int] | float | int, name: str | None = None) -> ir.Value:
        """A small constant kept inside the graph: floats become float32, integers int64; equal ones are shared."""
        array = np.asarray(value)
        if array.dtype == np.float64 and not isinstance(value, np.ndarray):
            array = array.astype(np.float32)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:12]
        key = name or f"const_{array.dtype}_{'x'.join(map(str, array.shape))}_{digest}"
        if key not in self._initializers:
            tensor = ir.tensor(array, name=key)
            self._initializers[key] = ir.Value(
                name=key, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
        return self._initializers[key]

    def stored(
        self, name: str, dtype: ir.DataType, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]
    ) -> ir.Value:
        """An initializer in the weight file, whose values `fill(view)` writes straight into it; once per name."""
        if name not in self._initializers:
            tensor, view = self.writer.allocate(name, dtype, shape)
            fill(view)
            self._initializers[name] = ir.Value(
                name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape), const_value=tensor
            )
        return self._initializers[name]

    def weight(self, name: str, array: np.ndarray) -> ir.Value:
        """A float32 initializer in the weight file with the given values."""

        def fill(view: np.ndarray) -> None:
            view[...] = array

        return self.stored(name, FLOAT, tuple(array.shape), fill)

    # -- shorthand for what every module needs ---------------------------------------------------------------------

    def add(self, a: ir.Value, b: ir.Value, name: str | None = None) -> ir.Value:
        """a + b."""
        return self.op("Add", a, b, name=name)

    def mul(self, a: ir.Value, b: ir.Value | float, name: str | None = None) -> ir.Value:
        """a · b; a Python number becomes a float32 constant."""
        return self.op("Mul", a, b if isinstance(b, ir.Value) else self.constant(float(b)), name=name)

    def reshape(self, x: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Reshape; 0 keeps a dimension, −1 infers one."""
        return self.op("Reshape", x, self.constant(list(shape)))

    def transpose(self, x: ir.Value, *order: int) -> ir.Value:
        """Permute the axes."""
        return self.op("Transpose", x, perm=list(order))

    def concat(self, *values: ir.Value, axis: int) -> ir.Value:
        """Join along an axis."""
        return self.op("Concat", *values, axis=axis)

    def slice(self, x: ir.Value, start: ir.Value | int, stop: ir.Value | int, axis: int) -> ir.Value:
        """x[start:stop] along one axis; bounds are numbers or int64 values of shape (1,)."""
        bounds = [bound if isinstance(bound, ir.Value) else self.constant([bound]) for bound in (start, stop)]
        return self.op("Slice", x, bounds[0], bounds[1], self.constant([axis]))

    def size(self, x: ir.Value, axis: int) -> ir.Value:
        """The length of one axis as int64 of shape (1,)."""
        return self.op("Shape", x, start=axis, end=axis + 1 if axis != -1 else None)

    def layer_norm(self, x: ir.Value, scale: ir.Value, bias: ir.Value, eps: float) -> ir.Value:
        """LayerNorm over the last axis."""
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=eps)

    def split_heads(self, x: ir.Value, heads: int, width: int) -> ir.Value:
        """(B, T, heads·width) → (B, heads, T, width)."""
        return self.transpose(self.reshape(x, [0, 0, heads, width]), 0, 2, 1, 3)

    def merge_heads(self, x: ir.Value, heads: int, width: int) -> ir.Value:
        """(B, heads, T, width) → (B, T, heads·width)."""
        return self.reshape(self.transpose(x, 0, 2, 1, 3), [0, 0, heads * width])
