"""Makes an ONNX graph ready for TensorRT: cache lengths become numbers, and what its types and islands are is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from omni2_engine.errors import Omni2Error

MARK = "precision"  # key of what a node says about its type on purpose, see `GraphBuilder.precise`


@dataclass(frozen=True)
class Prepared:
    """A graph file as TensorRT is to read it.

    Args:
        inputs: shape per input; dimensions that are names may change from call to call.
        islands: nodes that compute in float32 on purpose, and the casts at their borders.
    """

    inputs: dict[str, tuple[int | str, ...]]
    islands: frozenset[str]


def prepare(path: Path, capacities: Mapping[str, int]) -> Prepared:
    """Fix the named dimensions of a graph file in place.

    Args:
        path: of the ONNX file; its weights are not touched.
        capacities: number per symbolic dimension; all others stay as they are.

    Raises:
        Omni2Error: the graph computes in float64, which TensorRT would take for float32 without a word.
    """
    model = ir.load(path)
    _refuse_doubles(model, path)
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape([capacities.get(_name(size), size) for size in value.shape])
    path.write_bytes(ir.to_proto(model).SerializeToString())
    return Prepared(
        {value.name: tuple(map(_plain, value.shape)) for value in model.graph.inputs if value.name and value.shape},
        frozenset(node.name for node in model.graph if node.name and MARK in node.metadata_props),
    )


def _refuse_doubles(model: ir.Model, path: Path) -> None:
    double = ir.DataType.DOUBLE
    found = [name for name, value in model.graph.initializers.items() if value.dtype == double]
    for node in model.graph:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == double:
            found.append(str(node.name))
    if found:
        raise Omni2Error(
            f"{path.name} computes in float64 at {found[0]}, which TensorRT does not have",
            "report this: a graph for a GPU is built without float64",
        )


def _name(size: int | ir.SymbolicDim) -> str:
    return "" if isinstance(size, int) else str(size.value)


def _plain(size: int | ir.SymbolicDim) -> int | str:
    return size if isinstance(size, int) else str(size.value)
