"""Whisper's log-mel spectrogram of one padded window of 16 kHz audio (spec §2)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from omni2_engine.model.config import WHISPER_FFT, WHISPER_HOP, WHISPER_SAMPLE_RATE, EncoderConfig
from omni2_export.graphs.builder import DOUBLE, FLOAT, GraphBuilder, in_float32
from omni2_export.graphs.framing import cut_frames
from omni2_export.graphs.split_product import split_product

POWER_FLOOR = 1e-10  # spec §2
DYNAMIC_RANGE = 8.0  # decades below the window's loudest value, spec §2

# Slaney's mel scale: linear up to 1 kHz, then logarithmic with 27 mels for every factor of 6.4.
LINEAR_HZ_PER_MEL = 200 / 3
KNEE_HZ = 1000.0
KNEE_MEL = KNEE_HZ / LINEAR_HZ_PER_MEL
LOG_STEP = np.log(6.4) / 27


@in_float32
def build_log_mel(graph: GraphBuilder, config: EncoderConfig) -> None:
    """Add the log-mel spectrogram to `graph`.

    Inputs: audio (1, samples) float32 in ±1 at 16 kHz, one whole window.
    Outputs: log_mel (1, mel_bins, frames) float32.
    """
    g, c = graph, config
    audio = g.input("audio", FLOAT, [1, c.samples])
    half = WHISPER_FFT // 2
    padded = g.op("Pad", audio, g.constant([half, half]), None, g.constant([1]), mode="reflect")
    # A centred transform has one frame more, which is dropped (spec §2).
    power = _power(g, cut_frames(g, padded, WHISPER_FFT, WHISPER_HOP, g.constant([c.frames])))
    filters = slaney_filters(c.mel_bins, WHISPER_FFT, WHISPER_SAMPLE_RATE).astype(np.float32)
    mel = g.op("MatMul", power, g.constant(filters.T.copy()))  # (frames, mel_bins)
    log = g.mul(g.op("Log", g.op("Max", mel, g.constant(POWER_FLOOR))), 1 / np.log(10))
    floor = g.op("Sub", g.op("ReduceMax", log, keepdims=0), g.constant(DYNAMIC_RANGE))
    scaled = g.mul(g.add(g.op("Max", log, floor), g.constant(4.0)), 0.25)
    log_mel = g.op("Unsqueeze", g.transpose(scaled, 1, 0), g.constant([0]))
    g.output(log_mel, "log_mel", FLOAT, [1, c.mel_bins, c.frames])


def _power(g: GraphBuilder, frames: ir.Value) -> ir.Value:
    """|DFT(Hann · frame)|² of frames (n, fft) float32 → (n, fft/2 + 1) float32.

    The periodic window is symmetric about its middle and zero at its start: folding a frame there halves the products.
    They are float64, or split, since bins eight decades below the window's loudest must keep three digits. On spoken
    questions the split ones' log-mel is within 3e-7 of float64's, that of plain float32 within 5e-5.
    """
    half = WHISPER_FFT // 2
    if g.numerics.doubles:
        frames = g.op("Cast", frames, to=int(DOUBLE))
    left, middle = (g.slice(frames, start, stop, axis=1) for start, stop in ((1, half), (half, half + 1)))
    right = g.op("Slice", frames, g.constant([-1]), g.constant([half]), g.constant([1]), g.constant([-1]))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, half + 1) / WHISPER_FFT)
    angles = 2 * np.pi * np.outer(np.arange(1, half + 1), np.arange(half + 1)) / WHISPER_FFT  # (fft/2, bins)
    even = g.concat(g.add(left, right), middle, axis=1)
    real = _product(g, even, window[:, None] * np.cos(angles), "real")
    odd = g.op("Sub", left, right)
    imaginary = _product(g, odd, (window[:, None] * np.sin(angles))[:-1], "imaginary")
    power = g.add(g.mul(real, real), g.mul(imaginary, imaginary))
    return g.op("Cast", power, to=int(FLOAT)) if g.numerics.doubles else power


def _product(g: GraphBuilder, x: ir.Value, basis: np.ndarray, name: str) -> ir.Value:
    if g.numerics.doubles:
        return g.op("MatMul", x, g.constant(basis))
    return split_product(g, x, basis, name)


def slaney_filters(mel_bins: int, fft: int, rate: int) -> np.ndarray:
    """Triangular filters of equal area on Slaney's mel scale from 0 to rate / 2: (mel_bins, fft/2 + 1) float64."""
    top = KNEE_MEL + np.log(rate / 2 / KNEE_HZ) / LOG_STEP
    mels = np.linspace(0, top, mel_bins + 2)
    edges = np.where(mels < KNEE_MEL, mels * LINEAR_HZ_PER_MEL, KNEE_HZ * np.exp(LOG_STEP * (mels - KNEE_MEL)))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequencies = np.arange(fft // 2 + 1) * rate / fft
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    filters: np.ndarray = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters
