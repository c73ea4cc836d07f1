"""What drives the vocoder: mel → F0 → a harmonic sine source and its short-time spectrum (spec §9).

F0 is constant within a mel frame. So a sine's phase is one base per frame, accumulated exactly enough and wrapped, plus
a ramp inside the frame: only arrays of one value per frame are ever float64, or what stands for it where there is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from omni2_engine.model.config import VocoderConfig
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import DOUBLE, FLOAT, INT64, INT64_MAX, GraphBuilder, in_float32
from omni2_export.graphs.split_product import split_product

STEP_GRID = 4096  # steps per sample are split at multiples of 1/4096 cycle
CYCLE = 2**24  # integer phases per cycle
FILTER_BLOCK = 64  # filters one thread takes at a time in ONNX Runtime's convolution of images


def convolve(
    g: GraphBuilder,
    tensors: Tensors,
    x: ir.Value,
    name: str,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
) -> ir.Value:
    """The 1-d convolution `name` on x (B, channels, 1, n); padding defaults to keeping n.

    Wide ones are convolutions of an image one row high: ONNX Runtime's blocked kernel is for images alone and a sixth
    faster. It shares its work among threads by blocks of filters, though, so narrow ones are written as what they are,
    except for a GPU.
    """
    weight = tensors.read(f"{name}.weight")  # (outputs, inputs, kernel)
    outputs, _, kernel = weight.shape
    if padding is None:
        padding = (kernel - 1) * dilation // 2
    bias = g.weight(f"{name}.bias", tensors.read(f"{name}.bias"))
    if outputs < 2 * FILTER_BLOCK and not g.numerics.device:
        x = g.op("Squeeze", x, g.constant([2]))
        kernels = g.weight(f"{name}.weight", weight)
        y = g.op("Conv", x, kernels, bias, strides=[stride], dilations=[dilation], pads=[padding, padding])
        return g.op("Unsqueeze", y, g.constant([2]))
    kernels = g.weight(f"{name}.weight", weight[:, :, None, :])
    pads = [0, padding, 0, padding]
    return g.op("Conv", x, kernels, bias, strides=[1, stride], dilations=[1, dilation], pads=pads)


@in_float32
def predict_f0(g: GraphBuilder, config: VocoderConfig, tensors: Tensors, mel: ir.Value) -> ir.Value:
    """Fundamental frequency in Hz of each frame: mel (B, mel, F) → (B, F).

    The products are float64, or split: what F0 is off by adds up over a call in the phase of its highest overtone.
    Split ones are within 7e-5 Hz of float64's, two units in the last place, plain float32's within 2e-4.
    """
    if not g.numerics.doubles:
        return _predict_f0_split(g, config, tensors, mel)
    x = g.op("Cast", g.transpose(mel, 0, 2, 1), to=int(DOUBLE))  # (B, F, mel)
    for layer in range(config.f0_layers):
        x = _elu(g, _convolve_frames(g, tensors, x, f"f0_predictor.condnet.{2 * layer}"))  # odd numbers are the ELUs
    weight, bias = (_double(g, tensors, f"f0_predictor.classifier.{part}") for part in ("weight", "bias"))
    frequencies = g.add(g.op("MatMul", x, g.transpose(weight, 1, 0)), bias)  # (B, F, 1)
    return g.op("Abs", g.op("Cast", g.reshape(frequencies, [0, -1]), to=int(FLOAT)))


def _convolve_frames(g: GraphBuilder, tensors: Tensors, x: ir.Value, name: str) -> ir.Value:
    """The 1-d convolution `name` on x (B, F, channels) float64, keeping F, as one product over shifted copies."""
    outputs, inputs, kernel = tensors.shape(f"{name}.weight")
    shifts = _shifted_copies(g, x, kernel)
    weight, bias = (_double(g, tensors, f"{name}.{part}") for part in ("weight", "bias"))
    taps = g.reshape(g.transpose(weight, 2, 1, 0), [kernel * inputs, outputs])
    return g.add(g.op("MatMul", g.concat(*shifts, axis=2), taps), bias)


def _shifted_copies(g: GraphBuilder, x: ir.Value, kernel: int) -> list[ir.Value]:
    """What each tap of a convolution sees of x (B, F, channels), zeros beyond both ends: `kernel` copies of x."""
    padding = (kernel - 1) // 2
    padded = g.op("Pad", x, g.constant([padding, padding]), None, g.constant([1]))
    # the last copy ends at the sequence's end, the others as many frames before it
    return [g.slice(padded, k, k + 1 - kernel if k + 1 < kernel else INT64_MAX, axis=1) for k in range(kernel)]


def _double(g: GraphBuilder, tensors: Tensors, name: str) -> ir.Value:
    """A weight stored as float32 and widened when the graph is loaded."""
    return g.op("Cast", g.weight(name, tensors.read(name)), to=int(DOUBLE))


def _elu(g: GraphBuilder, x: ir.Value) -> ir.Value:
    """ELU of float64, for which ONNX Runtime has no kernel of that name."""
    zero, one = (g.constant(np.array(value, np.float64)) for value in (0, 1))
    return g.op("Sub", g.add(g.op("Max", x, zero), g.op("Exp", g.op("Min", x, zero))), one)


def _predict_f0_split(g: GraphBuilder, config: VocoderConfig, tensors: Tensors, mel: ir.Value) -> ir.Value:
    """See `predict_f0`."""

    def layer(x: ir.Value, name: str) -> ir.Value:
        weight = tensors.read(f"{name}.weight")
        taps = np.atleast_3d(weight).transpose(2, 1, 0)  # (kernel, inputs, outputs); a linear layer has kernel 1
        copies = g.concat(*_shifted_copies(g, x, len(taps)), axis=2)
        product = split_product(g, copies, taps.reshape(-1, taps.shape[2]).astype(np.float64), f"{name}.weight")
        return g.add(product, g.weight(f"{name}.bias", tensors.read(f"{name}.bias")))

    x = g.transpose(mel, 0, 2, 1)
    for index in range(config.f0_layers):
        x = g.op("Elu", layer(x, f"f0_predictor.condnet.{2 * index}"))
    return g.op("Abs", g.reshape(layer(x, "f0_predictor.classifier"), [0, -1]))


@in_float32
def harmonic_source(
    g: GraphBuilder, config: VocoderConfig, tensors: Tensors, f0: ir.Value, phase: ir.Value, noise: ir.Value
) -> ir.Value:
    """Sines at F0 and its overtones where a frame is voiced, noise where not, mixed to one signal.

    Args:
        f0: (B, F), Hz.
        phase: (B, H, 1) start phases in radians; the fundamental's is replaced by zero.
        noise: (B, H, F·hop) standard normal.

    Returns:
        (B, 1, F·hop), within ±1.
    """
    sines = config.harmonics + 1
    orders = np.arange(1, sines + 1, dtype=np.float32).reshape(1, sines, 1)
    frequencies = g.mul(g.op("Unsqueeze", f0, g.constant([1])), g.constant(orders))  # (B, H, F)
    step = g.op("Div", frequencies, g.constant(float(config.sample_rate)))  # cycles per sample
    base = _phase_before_frame(g, config, step)
    ramp = g.constant(np.arange(1, config.hop + 1, dtype=np.float32))
    last_axis = g.constant([-1])
    cycles = g.add(
        g.op("Unsqueeze", base, last_axis), g.mul(g.op("Unsqueeze", step, last_axis), ramp)
    )  # (B, H, F, hop)
    later = g.constant((np.arange(sines) > 0).astype(np.float32).reshape(1, sines, 1))
    start = g.op("Unsqueeze", g.mul(phase, later), last_axis)
    wave = g.op("Sin", g.add(g.mul(g.op("Sub", cycles, g.op("Floor", cycles)), 2 * np.pi), start))

    voiced = g.op("Cast", g.op("Greater", f0, g.constant(float(config.voiced_threshold))), to=int(FLOAT))
    voiced = g.reshape(voiced, [0, 1, -1, 1])
    loudness = g.mul(voiced, config.sine_amplitude)
    unvoiced_sigma = config.sine_amplitude / 3
    sigma = g.add(g.mul(voiced, config.noise_sigma - unvoiced_sigma), g.constant(unvoiced_sigma))
    framed_noise = g.reshape(noise, [0, sines, -1, config.hop])
    excited = g.reshape(g.add(g.mul(wave, loudness), g.mul(framed_noise, sigma)), [0, sines, -1])

    mix = g.weight("m_source.l_linear.weight", tensors.read("m_source.l_linear.weight")[None])  # (1, 1, H)
    bias = g.weight("m_source.l_linear.bias", tensors.read("m_source.l_linear.bias"))
    return g.op("Tanh", g.add(g.op("MatMul", mix, excited), bias))


def _phase_before_frame(g: GraphBuilder, config: VocoderConfig, step: ir.Value) -> ir.Value:
    """The fraction of a cycle passed before each frame: step (B, H, F), cycles per sample → (B, H, F) in [0, 1)."""
    if not g.numerics.doubles:
        return _phase_in_integers(g, config, step)
    advance = g.op("Mul", g.op("Cast", step, to=int(DOUBLE)), g.constant(np.array(config.hop, np.float64)))
    passed = g.op("CumSum", advance, g.constant(np.array(2)), exclusive=1)
    return g.op("Cast", g.op("Sub", passed, g.op("Floor", passed)), to=int(FLOAT))


def _phase_in_integers(g: GraphBuilder, config: VocoderConfig, step: ir.Value) -> ir.Value:
    """See `_phase_before_frame`. A frame's advance loses its whole cycles while it is still exact, and is then counted
    in integers of 2⁻²⁴ cycles, whose sums never round."""
    # step = n / 4096 + rest: n·hop is an integer that float32 holds, and rest·hop is small
    coarse = g.op("Round", g.mul(step, STEP_GRID))
    rest = g.op("Sub", step, g.mul(coarse, 1 / STEP_GRID))
    cycles = g.mul(g.mul(coarse, config.hop), 1 / STEP_GRID)
    advance = g.add(g.op("Sub", cycles, g.op("Floor", cycles)), g.mul(rest, config.hop))
    counts = g.op("Cast", g.op("Round", g.mul(advance, CYCLE)), to=int(INT64))
    passed = g.op("CumSum", counts, g.constant(np.array(2)), exclusive=1)
    wrapped = g.op("Mod", passed, g.constant(np.array(CYCLE, np.int64)))
    return g.mul(g.op("Cast", wrapped, to=int(FLOAT)), 1 / CYCLE)


def replace_head(g: GraphBuilder, source: ir.Value, cache: ir.Value) -> ir.Value:
    """`cache` (B, 1, Lc), then what `source` (B, 1, L) has behind its first Lc samples."""
    return g.concat(cache, g.slice(source, g.size(cache, 2), INT64_MAX, axis=2), axis=2)


@in_float32
def short_time_spectrum(g: GraphBuilder, config: VocoderConfig, source: ir.Value) -> ir.Value:
    """torch.stft(center, reflect, periodic Hann) of source (B, 1, L) → (B, fft + 2, L / fft_hop + 1), real parts first.

    Its halves are called `stft_real` and `stft_imag` in the graph.
    """
    half = config.fft // 2
    padded = g.op("Pad", source, g.constant([half, half]), None, g.constant([2]), mode="reflect")
    angles = _angles(config)
    halves = []
    for name, wave in (("stft_real", np.cos(angles)), ("stft_imag", -np.sin(angles))):
        basis = (wave * hann(config.fft)).astype(np.float32)[:, None, :]
        halves.append(g.op("Conv", padded, g.weight(f"{name}.basis", basis), strides=[config.fft_hop], name=name))
    return g.concat(*halves, axis=1)


@in_float32
def overlap_add(g: GraphBuilder, config: VocoderConfig, real: ir.Value, imaginary: ir.Value) -> ir.Value:
    """torch.istft(center, periodic Hann): spectra (B, fft/2 + 1, n) → (B, 1, (n − 1)·fft_hop)."""
    angles = _angles(config)
    doubled = np.full((len(angles), 1), 2.0)  # every bin stands for its mirror image too
    doubled[0] = 1
    if config.fft % 2 == 0:
        doubled[-1] = 1
    window = hann(config.fft)
    waves = np.concatenate([doubled * np.cos(angles), -doubled * np.sin(angles)]) * window / config.fft
    attributes: dict[str, Any] = {"strides": [config.fft_hop], "pads": [config.fft // 2, config.fft // 2]}
    spectra = g.concat(real, imaginary, axis=1)
    summed = g.op("ConvTranspose", spectra, g.weight("istft.basis", waves.astype(np.float32)[:, None, :]), **attributes)
    # The windows' overlap is a constant but at both edges, where fewer frames reach; so it is summed as the frames are.
    ones = g.op(
        "ConstantOfShape",
        g.concat(g.constant([1, 1]), g.size(real, 2), axis=0),
        value=ir.tensor(np.ones(1, np.float32)),
    )
    squares = g.constant(np.square(window).astype(np.float32).reshape(1, 1, -1))
    return g.op("Div", summed, g.op("ConvTranspose", ones, squares, **attributes))


def hann(length: int) -> np.ndarray:
    """The periodic Hann window, float64."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def _angles(config: VocoderConfig) -> np.ndarray:
    """2π·bin·sample / fft, (fft/2 + 1, fft) float64."""
    return 2 * np.pi * np.outer(np.arange(config.fft // 2 + 1), np.arange(config.fft)) / config.fft
