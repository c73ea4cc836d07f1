"""HiFT vocoder: mel frames and random draws → waveform, with the harmonic source it was driven by (spec §9)."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from omni2_engine.model.config import VocoderConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import FLOAT, GraphBuilder, in_float32
from omni2_export.graphs.vocoder_source import (
    convolve,
    harmonic_source,
    overlap_add,
    predict_f0,
    replace_head,
    short_time_spectrum,
)

SNAKE_EPS = 1e-9  # spec §9
FINAL_SLOPE = 0.01  # of the last leaky ReLU, which does not use the configured slope (spec §9)
MAGNITUDE_LIMIT = 100.0  # spec §9


def build_vocoder(graph: GraphBuilder, config: VocoderConfig, tensors: Tensors) -> None:
    """Add the vocoder to `graph`; its source, its spectra and its snakes are always float32. B sessions take part, each
    with F new and repeated mel frames; H = harmonics + 1 sines.

    Inputs:
        mel (B, mel, F) float32;
        phase (B, H, 1) float32, uniform in ±π, the fundamental's is not used;
        noise (B, H, F·hop) float32, standard normal;
        source_cache (B, 1, Lc) float32, 0 ≤ Lc ≤ F·hop: replaces the head of the source.
    Outputs:
        wav (B, F·hop) float32 within ±audio_limit; source (B, 1, F·hop), after the replacement; f0 (B, F) in Hz.
        Inside: stft_real, stft_imag (B, fft/2 + 1, F·hop/fft_hop + 1), of the source.
    """
    g, c = graph, config
    sines = c.harmonics + 1
    mel = g.input("mel", FLOAT, ["B", c.mel, "F"])
    phase = g.input("phase", FLOAT, ["B", sines, 1])
    noise = g.input("noise", FLOAT, ["B", sines, "samples"])
    cache = g.input("source_cache", FLOAT, ["B", 1, "cached"])

    f0 = predict_f0(g, c, tensors, mel)
    source = replace_head(g, harmonic_source(g, c, tensors, f0, phase, noise), cache)
    spectrum = g.op("Unsqueeze", short_time_spectrum(g, c, source), g.constant([2]))

    x = convolve(g, tensors, g.op("Unsqueeze", mel, g.constant([2])), "conv_pre")
    stages = len(c.upsample_rates)
    blocks = len(c.resblock_kernels)
    for stage in range(stages):
        x = _upsample(g, c, tensors, g.op("LeakyRelu", x, alpha=c.leaky_slope), stage)
        if stage == stages - 1:
            x = g.op("Pad", x, g.constant([1, 0]), None, g.constant([3]), mode="reflect")  # the STFT has one frame more
        x = g.residual(x, _source_branch(g, c, tensors, spectrum, stage))
        branches = [
            _resblock(g, tensors, x, f"resblocks.{stage * blocks + block}", c.resblock_dilations[block])
            for block in range(blocks)
        ]
        with g.precise():
            x = g.mul(g.op("Sum", *branches), 1 / blocks)
    x = convolve(g, tensors, g.op("LeakyRelu", x, alpha=FINAL_SLOPE), "conv_post")

    bins = c.fft // 2 + 1
    logs, angles = g.ops("Split", g.reshape(x, [0, 2 * bins, -1]), g.constant([bins, bins]), outputs=2, axis=1)
    with g.precise():
        magnitude = g.op("Min", g.op("Exp", logs), g.constant(MAGNITUDE_LIMIT))
        angle = g.op("Sin", angles)
        wav = overlap_add(g, c, g.mul(magnitude, g.op("Cos", angle)), g.mul(magnitude, g.op("Sin", angle)))
        clipped = g.op("Clip", wav, g.constant(-c.audio_limit), g.constant(c.audio_limit))
    g.output(g.reshape(clipped, [0, -1]), "wav", FLOAT, ["B", "samples"])
    g.output(source, "source", FLOAT, ["B", 1, "samples"])
    g.output(f0, "f0", FLOAT, ["B", "F"])


def _upsample(g: GraphBuilder, config: VocoderConfig, tensors: Tensors, x: ir.Value, stage: int) -> ir.Value:
    """Transposed convolution of x (B, channels, 1, n) → (B, channels / 2, 1, n · rate)."""
    rate, kernel = config.upsample_rates[stage], config.upsample_kernels[stage]
    padding = (kernel - rate) // 2
    weight = tensors.read(f"ups.{stage}.weight")  # (inputs, outputs, kernel)
    return g.op(
        "ConvTranspose",
        x,
        g.weight(f"ups.{stage}.weight", weight[:, :, None, :]),
        g.weight(f"ups.{stage}.bias", tensors.read(f"ups.{stage}.bias")),
        strides=[1, rate],
        pads=[0, padding, 0, padding],
    )


def _source_branch(
    g: GraphBuilder, config: VocoderConfig, tensors: Tensors, spectrum: ir.Value, stage: int
) -> ir.Value:
    """The source's spectrum at the time resolution and width of this stage."""
    stride = math.prod(config.upsample_rates[stage + 1 :])
    down = convolve(
        g, tensors, spectrum, f"source_downs.{stage}", stride=stride, padding=stride // 2 if stride > 1 else 0
    )
    return _resblock(g, tensors, down, f"source_resblocks.{stage}", config.source_dilations[stage])


def _resblock(g: GraphBuilder, tensors: Tensors, x: ir.Value, path: str, dilations: tuple[int, ...]) -> ir.Value:
    for layer, dilation in enumerate(dilations):
        inner = _snake(g, tensors, x, f"{path}.activations1.{layer}")
        inner = convolve(g, tensors, inner, f"{path}.convs1.{layer}", dilation=dilation)
        inner = _snake(g, tensors, inner, f"{path}.activations2.{layer}")
        x = g.residual(convolve(g, tensors, inner, f"{path}.convs2.{layer}"), x)
    return x


@in_float32
def _snake(g: GraphBuilder, tensors: Tensors, x: ir.Value, path: str) -> ir.Value:
    """x + sin²(αx) / (α + ε), α per channel."""
    alpha = tensors.read(f"{path}.alpha").astype(np.float32).reshape(1, -1, 1, 1)
    sine = g.op("Sin", g.mul(x, g.weight(f"{path}.alpha", alpha)))
    bend = g.mul(g.mul(sine, sine), g.weight(f"{path}.scale", 1 / (alpha + np.float32(SNAKE_EPS))))
    return g.add(x, bend)
