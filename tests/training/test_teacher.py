"""Convolutions of an ONNX graph that were quantised dynamically, back in float32."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from omni2_training.teacher.float_convs import dequantise_convolutions


def quantised_graph(weight: np.ndarray, scale: np.ndarray) -> onnx.ModelProto:
    """x → dynamic quantisation → ConvInteger → scales → y, as ONNX Runtime's quantiser writes it."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("ConvInteger", ["xq", "wq", "xz", "wz"], ["yi"], pads=[1, 1], name="conv"),
        helper.make_node("Cast", ["yi"], ["yf"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "ws"], ["s"]),
        helper.make_node("Mul", ["yf", "s"], ["y"]),
    ]
    tensors = [
        numpy_helper.from_array(weight, "wq"),
        numpy_helper.from_array(np.array(3, np.uint8), "wz"),
        numpy_helper.from_array(scale, "ws"),
    ]
    shape = ["b", weight.shape[1], "t"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", weight.shape[0], "t"])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_dequantised_convolution_is_the_same_without_rounding() -> None:
    rng = np.random.default_rng(0)
    weight, scale = rng.integers(0, 256, (4, 3, 3)).astype(np.uint8), np.float32(0.01)
    x = rng.standard_normal((2, 3, 20)).astype(np.float32)
    model = quantised_graph(weight, np.array(scale))
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    assert dequantise_convolutions(model) == 1
    assert "ConvInteger" not in {node.op_type for node in model.graph.node}
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    exact = np.zeros_like(after)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1)))
    for k in range(3):
        exact += np.einsum("oi,bit->bot", (weight[:, :, k].astype(np.float32) - 3) * scale, padded[:, :, k : k + 20])
    assert np.allclose(after, exact, atol=1e-4)
    assert np.abs(before - exact).max() < 0.05 * np.abs(exact).max()  # it was the same convolution, rounded
    assert np.abs(before - exact).max() > 1e-3
