"""Normalisations over the last axis, always in float32."""

from __future__ import annotations

import onnx_ir as ir

from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import GraphBuilder, in_float32


@in_float32
def layer_norm(g: GraphBuilder, tensors: Tensors, x: ir.Value, name: str, eps: float) -> ir.Value:
    """LayerNorm with `name`'s `.weight` and `.bias`."""
    scale = g.weight(f"{name}.weight", tensors.read(f"{name}.weight"))
    bias = g.weight(f"{name}.bias", tensors.read(f"{name}.bias"))
    return g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=eps)


@in_float32
def rms_norm(g: GraphBuilder, tensors: Tensors, x: ir.Value, name: str, eps: float) -> ir.Value:
    """RMSNorm with `name`'s `.weight`."""
    scale = g.weight(f"{name}.weight", tensors.read(f"{name}.weight"))
    return g.op("RMSNormalization", x, scale, axis=-1, epsilon=eps)
