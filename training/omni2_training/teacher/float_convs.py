"""Dynamically quantised convolutions of an ONNX graph back to float32.

ONNX Runtime has no fast integer convolution on the CPU: the same graph with dequantised weights runs faster, and its
activations are no longer rounded.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def dequantise_convolutions(model: onnx.ModelProto) -> int:
    """Replace DynamicQuantizeLinear → ConvInteger → Cast → Mul(scales) by Conv, in place.

    Returns:
        How many convolutions were replaced; those of another form are left alone.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    maker = {output: node for node in graph.node for output in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    replaced: dict[str, onnx.NodeProto | None] = {}  # by a node's first output; None is left out
    for node in graph.node:
        if node.op_type != "ConvInteger":
            continue
        quantise = maker.get(node.input[0])
        cast = _only(users, node.output[0], "Cast")
        scaled = _only(users, cast.output[0], "Mul") if cast else None
        if quantise is None or quantise.op_type != "DynamicQuantizeLinear" or scaled is None:
            continue
        scales = maker.get(next(name for name in scaled.input if name != cast.output[0]))
        if scales is None or scales.op_type != "Mul" or quantise.output[1] not in scales.input:
            continue
        weight_scale = next(name for name in scales.input if name != quantise.output[1])
        if node.input[1] not in constants or weight_scale not in constants:
            continue
        weight = _dequantised(constants, node.input[1], node.input[3] if len(node.input) > 3 else "", weight_scale)
        name = f"{node.input[1]}_float"
        graph.initializer.append(numpy_helper.from_array(weight, name))
        conv = onnx.helper.make_node("Conv", [quantise.input[0], name], [scaled.output[0]], name=f"{node.name}_float")
        conv.attribute.extend(node.attribute)
        replaced[node.output[0]] = conv
        replaced[cast.output[0]] = replaced[scaled.output[0]] = None
    nodes = [replaced.get(node.output[0], node) for node in graph.node]
    del graph.node[:]
    graph.node.extend(node for node in nodes if node is not None)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return sum(node is not None for node in replaced.values())


def _only(users: dict[str, list[onnx.NodeProto]], name: str, kind: str) -> onnx.NodeProto | None:
    nodes = users.get(name, [])
    return nodes[0] if len(nodes) == 1 and nodes[0].op_type == kind else None


def _dequantised(constants: dict[str, onnx.TensorProto], weight: str, zero: str, scale: str) -> np.ndarray:
    values = numpy_helper.to_array(constants[weight]).astype(np.float32)
    shape = (-1,) + (1,) * (values.ndim - 1)
    if zero:
        values -= numpy_helper.to_array(constants[zero]).astype(np.float32).reshape(shape)
    return values * numpy_helper.to_array(constants[scale]).astype(np.float32).reshape(shape)
