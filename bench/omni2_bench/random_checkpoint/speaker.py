"""A stand-in for `campplus.onnx` with the real contract: filter banks (1, T, 80) → speaker vector (1, width)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from omni2_bench.random_checkpoint.draw import Rule, draw
from omni2_export.speaker import BINS

OPSET = 13  # as the released file
IR_VERSION = 8


def write_campplus(path: Path, width: int, seed: int) -> None:
    """Write mean and deviation of every bin over time, through one random linear layer."""
    rule = Rule(1 / math.sqrt(2 * BINS))
    weight = np.concatenate(list(draw("campplus", (2 * BINS, width), rule, seed)))
    features = ir.Value(name="input", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["B", "T", BINS]))
    nodes: list[ir.Node] = []

    def op(kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        nodes.append(ir.node(kind, inputs, attributes))
        return nodes[-1].outputs[0]

    mean = op("ReduceMean", features, axes=[1], keepdims=0)
    power = op("ReduceMean", op("Mul", features, features), axes=[1], keepdims=0)
    stored = ir.Value(
        name="weight",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(weight.shape),
        const_value=ir.tensor(weight, name="weight"),
    )
    output = op("MatMul", op("Concat", mean, op("Sqrt", power), axis=1), stored)
    output.name, output.type, output.shape = "output", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["B", width])
    graph = ir.Graph(
        [features], [output], nodes=nodes, initializers=[stored], opset_imports={"": OPSET}, name="campplus"
    )
    path.write_bytes(ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString())
