"""Reads what must be known about a graph: which dimensions change from call to call, which nodes are islands, how many
products are of fp8."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from omni2_engine.errors import Omni2Error
from omni2_export.graphs.builder import ISLAND


@dataclass(frozen=True)
class Facts:
    """About one graph.

    Args:
        inputs: shape per input; dimensions that are names may change from call to call.
        islands: nodes that compute in float32 on purpose, and the casts at their borders.
        fp8: products whose activations are quantised to fp8.
    """

    inputs: dict[str, tuple[int | str, ...]]
    islands: frozenset[str]
    fp8: int = 0


def read_facts(path: Path) -> Facts:
    """Read a graph file, but not its weights.

    Raises:
        Omni2Error: the graph computes in float64, which TensorRT would take for float32 without a word.
    """
    model = ir.load(path)
    double = ir.DataType.DOUBLE
    found = [name for name, value in model.graph.initializers.items() if value.dtype == double]
    found += [
        str(node.name) for node in model.graph if node.op_type == "Cast" and node.attributes["to"].as_int() == double
    ]
    if found:
        raise Omni2Error(
            f"{path.name} computes in float64 at {found[0]}, which TensorRT does not have",
            "report this: graphs for a GPU are built without float64",
        )
    return Facts(
        {value.name: _shape(value) for value in model.graph.inputs if value.name},
        frozenset(node.name for node in model.graph if node.name and ISLAND in node.metadata_props),
        sum(node.op_type == "QuantizeLinear" for node in model.graph),
    )


def _shape(value: ir.Value) -> tuple[int | str, ...]:
    assert value.shape is not None
    return tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)
