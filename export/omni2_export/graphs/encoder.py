"""Whisper encoder and projector: log-mel → vectors the language model reads in place of text (spec §3)."""

from __future__ import annotations

import onnx_ir as ir

from omni2_engine.model.config import EncoderConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.attention import attend
from omni2_export.graphs.builder import FLOAT, GraphBuilder
from omni2_export.graphs.linear import LinearWriter, Precision
from omni2_export.graphs.norms import layer_norm

LAYER_NORM_EPS = 1e-5


def build_encoder(graph: GraphBuilder, config: EncoderConfig, tensors: Tensors, precision: Precision) -> None:
    """Add encoder and projector to `graph`; the projector and the convolutions are always float32.

    Inputs: log_mel (1, mel_bins, frames) float32.
    Outputs: speech (1, positions, output) float32. Inside: encoder_out (1, context, width), after ln_post.
    """
    g, c = graph, config
    linear = LinearWriter(g, tensors, precision)
    mel = g.input("log_mel", FLOAT, [1, c.mel_bins, c.frames])
    x = _convolution(g, tensors, mel, "conv1", stride=1)
    x = g.transpose(_convolution(g, tensors, x, "conv2", stride=2), 0, 2, 1)  # (1, context, width)
    with g.precise():
        x = g.add(x, g.weight("positional_embedding", tensors.read("positional_embedding")))
    width = c.width // c.heads
    for layer in range(c.layers):
        path = f"blocks.{layer}"
        normed = layer_norm(g, tensors, x, f"{path}.attn_ln", LAYER_NORM_EPS)
        qkv = linear(normed, f"{path}.attn.query", f"{path}.attn.key", f"{path}.attn.value")
        parts = g.ops("Split", qkv, outputs=3, axis=-1, num_outputs=3)
        heads = [g.split_heads(part, c.heads, width) for part in parts]
        attended = attend(g, heads[0], heads[1], heads[2], None, width, scale=width**-0.5)
        x = g.residual(x, linear(g.merge_heads(attended, c.heads, width), f"{path}.attn.out"))
        normed = layer_norm(g, tensors, x, f"{path}.mlp_ln", LAYER_NORM_EPS)
        inner = g.op("Gelu", linear(normed, f"{path}.mlp.0"))
        x = g.residual(x, linear(inner, f"{path}.mlp.2"), name=f"layer_{layer}_out")
    encoded = g.op("Identity", layer_norm(g, tensors, x, "ln_post", LAYER_NORM_EPS), name="encoder_out")
    kept = g.slice(encoded, 0, c.positions * c.stack, axis=1)
    stacked = g.reshape(kept, [1, c.positions, c.stack * c.width])
    exact = LinearWriter(g, tensors, Precision.FP32)
    speech = exact(g.op("Relu", exact(stacked, "projector.linear1")), "projector.linear2")
    g.output(speech, "speech", FLOAT, [1, c.positions, c.output])


def _convolution(g: GraphBuilder, tensors: Tensors, x: ir.Value, name: str, stride: int) -> ir.Value:
    kernel = tensors.shape(f"{name}.weight")[2]
    weight = g.weight(f"{name}.weight", tensors.read(f"{name}.weight"))
    bias = g.weight(f"{name}.bias", tensors.read(f"{name}.bias"))
    padding = (kernel - 1) // 2
    return g.op("Gelu", g.op("Conv", x, weight, bias, strides=[stride], pads=[padding, padding]))
