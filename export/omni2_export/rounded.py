"""Emulates a graph of narrower floats in float32: every operator computes widened values and its result is rounded.

That is what a GPU's kernels do, which read and write float16 or bfloat16 and add up in float32; and it runs where there
are no kernels of that type at all, as for bfloat16 on the CPU.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from omni2_export.graphs.numerics import MOVING, WRITING
from omni2_export.inspection import read_graph

NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
EXACT = MOVING | WRITING  # operators whose results need no rounding where what they read is rounded


def rounded(path: Path) -> onnx.ModelProto:
    """The emulation of a graph file.

    Args:
        path: of a graph whose float values are float16, bfloat16 or float32; its weights stay where they are.

    Returns:
        A model that takes and gives float32 where the graph takes and gives narrower floats, and whose initializers
        still refer to the weight file beside `path`.

    Raises:
        EngineDirectoryError: the file is missing or damaged.
    """
    model = read_graph(path)
    types = _types(model)
    graph = model.graph
    nodes: list[onnx.NodeProto] = []
    for tensor in graph.initializer:
        if tensor.data_type in NARROW:
            narrow = f"{tensor.name} as stored"
            nodes.append(_cast(narrow, tensor.name, TensorProto.FLOAT))
            tensor.name = narrow
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "Cast":
            to = node.attribute[0]
            to.i = TensorProto.FLOAT if to.i in NARROW else to.i
        if node.op_type in EXACT:
            continue
        for index, name in enumerate(node.output):
            if types.get(name) in NARROW:
                node.output[index] = f"{name} before rounding"
                nodes.append(_cast(node.output[index], f"{name} rounded", types[name]))
                nodes.append(_cast(f"{name} rounded", name, TensorProto.FLOAT))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in NARROW:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return model


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value in a graph."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], to=to)
