"""Gate fusion: hidden states of the language model and embeddings of its tokens → inputs of the speech LM (spec §6)."""

from __future__ import annotations

from omni2_engine.model.config import FusionConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import FLOAT, GraphBuilder
from omni2_export.graphs.linear import LinearWriter, Precision


def build_fusion(graph: GraphBuilder, config: FusionConfig, tensors: Tensors) -> None:
    """Add the fusion to `graph`; always float32, it is small.

    Inputs: hidden (n, llm_hidden) float32; token_embeds (n, speech_hidden) float32.
    Outputs: fused (n, speech_hidden) float32 = g⊙e_hid + (1−g)⊙e_emb. Inside: input_proj_out, the projected hidden
        states.
    """
    g, linear = graph, LinearWriter(graph, tensors, Precision.FP32)
    hidden = g.input("hidden", FLOAT, ["n", config.llm_hidden])
    embeds = g.input("token_embeds", FLOAT, ["n", config.speech_hidden])
    projected = linear(g.op("Relu", linear(hidden, "input_proj.0")), "input_proj.2", name="input_proj_out")
    gate = g.op("Sigmoid", linear(g.concat(projected, embeds, axis=-1), "gate.0"))
    with g.precise():  # e_emb + g·(e_hid − e_emb) is the same with one product less
        fused = g.add(embeds, g.mul(gate, g.op("Sub", projected, embeds)))
    g.output(fused, "fused", FLOAT, ["n", config.speech_hidden])
