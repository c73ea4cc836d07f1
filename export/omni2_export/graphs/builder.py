"""Builds one ONNX graph by hand: opset 24 standard operators, weights in an external file, names that say what a value
is.

`GraphBuilder` is what every module in this folder is written with. Nothing is traced, so what stands in the module is
what runs. One module serves every number format: the builder knows the type of each value and casts where two meet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import ml_dtypes
import numpy as np
import onnx_ir as ir

from omni2_engine.errors import SettingError
from omni2_export.graphs.numerics import FLOAT, FLOATS, INT64, Numerics, operand_type, output_types
from omni2_export.graphs.weights import WeightWriter, WrittenWeights

__all__ = ["BOOL", "DOUBLE", "FLOAT", "INT32", "INT64", "INT64_MAX", "Dim", "GraphBuilder", "Numerics", "in_float32"]

OPSET = 24
IR_VERSION = 11
BOOL, INT32, DOUBLE = ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.DOUBLE
Dim = int | str
INT64_MAX = 2**63 - 1
ISLAND = "precision"  # key of what a node says of its type, in its metadata: that it is in an island, or casts at one
BORDER = "border"


P = ParamSpec("P")
R = TypeVar("R")


class GraphBuilder:
    """One graph under construction.

    Args:
        name: the graph's name.
        writer: where its weights go.
        numerics: its number formats; float32 unless given.
        sizes: numbers for symbolic dimensions of inputs and outputs; the others stay symbols. TensorRT updates a cache
            in place only if its `capacity` is a number.

    Attributes:
        compute: the type of float values outside `precise` islands, and of caches.
        current: the type of float values made now: float32 inside such an island.
    """

    def __init__(
        self,
        name: str,
        writer: WeightWriter | WrittenWeights,
        numerics: Numerics | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.name = name
        self.writer = writer
        self.numerics = numerics or Numerics()
        self._sizes = sizes or {}
        self.compute = self.current = self.numerics.compute
        self._types: dict[ir.Value, ir.DataType] = {}
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._counter = 0

    # -- the graph's borders ---------------------------------------------------------------------------------------

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[Dim]) -> ir.Value:
        """Declare a graph input; string dimensions are symbolic."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=self._shape(shape))
        self._inputs.append(value)
        self._types[value] = dtype
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[Dim]) -> None:
        """Declare `value` a graph output called `name`; a float of another type is cast."""
        if self._types[value] in FLOATS:
            value = self._cast(value, dtype)
        if value.name != name:
            value = self.op("Identity", value) if value.is_graph_input() or value.name in self._initializers else value
            value.name = name
        value.type, value.shape = ir.TensorType(dtype), self._shape(shape)
        self._outputs.append(value)

    def _shape(self, shape: Sequence[Dim]) -> ir.Shape:
        return ir.Shape([self._sizes.get(size, size) if isinstance(size, str) else size for size in shape])

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

    # -- number formats --------------------------------------------------------------------------------------------

    @contextmanager
    def precise(self) -> Iterator[None]:
        """An island of float32 in a graph that computes in less: what is made inside is float32, and what comes from
        outside is cast."""
        outer, self.current = self.current, FLOAT
        try:
            yield
        finally:
            self.current = outer

    def type_of(self, value: ir.Value) -> ir.DataType:
        """The element type of a value of this graph."""
        return self._types[value]

    def rounded(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """A float with no more digits than another type has, in its own type."""
        own = self._types[value]
        return self._convert(self._convert(value, dtype), own)

    @property
    def lowest(self) -> float:
        """The lowest finite number of the current float type."""
        return float(ml_dtypes.finfo(FLOATS[self.current]).min)

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` as another type, cast once however often it is asked for."""
        if self._types[value] == dtype:
            return value
        if (value, dtype) not in self._casts:
            self._casts[value, dtype] = self._convert(value, dtype)
        return self._casts[value, dtype]

    def _convert(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """A new cast, marked as one that is meant."""
        cast = self.op("Cast", value, to=int(dtype))
        self._nodes[-1].metadata_props[ISLAND] = BORDER
        return cast

    # -- nodes and constants ---------------------------------------------------------------------------------------

    def op(self, kind: str, *inputs: ir.Value | None, name: str | None = None, **attributes: Any) -> ir.Value:
        """Add a node with one output, called `name` if given."""
        return self.ops(kind, *inputs, outputs=1, names=[name], **attributes)[0]

    def ops(
        self, kind: str, *inputs: ir.Value | None, outputs: int, names: Sequence[str | None] = (), **attributes: Any
    ) -> list[ir.Value]:
        """Add a node with several outputs. Float inputs of another type than its own are cast."""
        attributes = {key: value for key, value in attributes.items() if value is not None}
        types = [None if value is None else self._types[value] for value in inputs]
        common = operand_type(kind, types, self.current)
        if common is not None:
            inputs = tuple(
                self._cast(value, common) if value is not None and dtype in FLOATS else value
                for value, dtype in zip(inputs, types, strict=True)
            )
            types = [common if dtype in FLOATS else dtype for dtype in types]
        self._counter += 1
        values = []
        for index in range(outputs):
            given = names[index] if index < len(names) else None
            values.append(ir.Value(name=given or f"{kind}_{self._counter}" + (f"_{index}" if outputs > 1 else "")))
        self._types |= zip(values, output_types(kind, types, attributes, outputs), strict=True)
        # In a graph of narrower floats, marks a node that is float32 on purpose, for an audit of the types.
        notes = {ISLAND: FLOAT.name} if self.current != self.compute else None
        name = f"{kind}_{self._counter}"
        self._nodes.append(ir.node(kind, inputs, attributes, outputs=values, name=name, metadata_props=notes))
        return values

    def constant(self, value: np.ndarray | Sequence[int] | float | int, name: str | None = None) -> ir.Value:
        """A small constant kept inside the graph: floats become the current float type, integers int64; equal ones are
        shared. An array of float64 stays one."""
        array = np.asarray(value)
        if array.dtype == np.float32 or (array.dtype == np.float64 and not isinstance(value, np.ndarray)):
            array = array.astype(FLOATS[self.current])
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:12]
        key = name or f"const_{array.dtype}_{'x'.join(map(str, array.shape))}_{digest}"
        if key not in self._initializers:
            tensor = ir.tensor(array, name=key)
            self._initializers[key] = ir.Value(
                name=key, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
            self._types[self._initializers[key]] = tensor.dtype
        return self._initializers[key]

    def stored(
        self, name: str, dtype: ir.DataType, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]
    ) -> ir.Value:
        """An initializer in the weight file, whose values `fill(view)` writes straight into it; once per name.

        Raises:
            SettingError: a value is beyond the range of `dtype`.
        """
        if name not in self._initializers:
            tensor = self.writer.find(name)
            if tensor is None:
                tensor = self._write(name, dtype, shape, fill)
            self._initializers[name] = ir.Value(
                name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape), const_value=tensor
            )
            self._types[self._initializers[name]] = dtype
        return self._initializers[name]

    def _write(
        self, name: str, dtype: ir.DataType, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]
    ) -> ir.ExternalTensor:
        tensor, view = self.writer.allocate(name, dtype, shape)
        with np.errstate(over="ignore"):
            fill(view)
        if dtype == ir.DataType.FLOAT16 and not np.isfinite(view).all():
            raise SettingError(
                f"{self.name}: {name} holds values beyond float16's range", "build this stage in bf16 or fp32"
            )
        return tensor

    def weight(self, name: str, array: np.ndarray) -> ir.Value:
        """An initializer of the current float type in the weight file, with the given values."""

        def fill(view: np.ndarray) -> None:
            view[...] = array

        return self.stored(name, self.current, tuple(array.shape), fill)

    # -- shorthand for what every module needs ---------------------------------------------------------------------

    def add(self, a: ir.Value, b: ir.Value, name: str | None = None) -> ir.Value:
        """a + b."""
        return self.op("Add", a, b, name=name)

    def mul(self, a: ir.Value, b: ir.Value | float, name: str | None = None) -> ir.Value:
        """a · b; a Python number becomes a constant of the current float type."""
        return self.op("Mul", a, b if isinstance(b, ir.Value) else self.constant(float(b)), name=name)

    def residual(self, x: ir.Value, change: ir.Value, name: str | None = None) -> ir.Value:
        """x + change in float32: a stream that many layers add to outgrows narrower types' digits, and their range."""
        with self.precise():
            return self.add(x, change, name=name)

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

    def split_heads(self, x: ir.Value, heads: int, width: int) -> ir.Value:
        """(B, T, heads·width) → (B, heads, T, width)."""
        return self.transpose(self.reshape(x, [0, 0, heads, width]), 0, 2, 1, 3)

    def merge_heads(self, x: ir.Value, heads: int, width: int) -> ir.Value:
        """(B, heads, T, width) → (B, T, heads·width)."""
        return self.reshape(self.transpose(x, 0, 2, 1, 3), [0, 0, heads * width])


def in_float32(
    build: Callable[Concatenate[GraphBuilder, P], R],
) -> Callable[Concatenate[GraphBuilder, P], R]:
    """Makes the whole of what a function adds to a graph an island, see `GraphBuilder.precise`."""

    @wraps(build)
    def built(g: GraphBuilder, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with g.precise():
            return build(g, *args, **kwargs)

    return built
