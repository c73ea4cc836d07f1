"""Kaldi log filter banks of a voice prompt, what the speaker network reads (spec §7)."""

from __future__ import annotations

import numpy as np

from omni2_engine.stages.speaker import BINS, FRAME, SAMPLE_RATE, SHIFT
from omni2_export.graphs.builder import DOUBLE, FLOAT, GraphBuilder, in_float32
from omni2_export.graphs.framing import cut_frames

FFT = 512  # samples
PREEMPHASIS = 0.97
LOG_FLOOR = 1.1920929e-7
LOW_HZ, HIGH_HZ = 20.0, 8000.0
POVEY_POWER = 0.85  # the Povey window is a Hann window to this power


@in_float32
def build_fbank(graph: GraphBuilder) -> None:
    """Add the filter banks to `graph`.

    Inputs: audio (1, n) float32 in ±1 at 16 kHz, n ≥ 400.
    Outputs: fbank (frames, 80) float32, each bin's mean over time subtracted; frames = 1 + (n − 400) // 160.
    """
    g = graph
    audio = g.input("audio", FLOAT, [1, "n"])
    hops = g.op("Div", g.op("Sub", g.size(audio, 1), g.constant([FRAME])), g.constant([SHIFT]))
    shifts = -(-FRAME // SHIFT)
    padding = g.constant([0, shifts * SHIFT - FRAME])  # zeros that only whole hops need and no frame holds
    padded = g.op("Cast", g.op("Pad", audio, padding, None, g.constant([1])), to=int(DOUBLE))
    frames = cut_frames(g, padded, FRAME, SHIFT, g.add(hops, g.constant([1])))
    real, imaginary = (g.op("MatMul", frames, g.constant(basis)) for basis in _spectrum_bases())
    power = g.add(g.mul(real, real), g.mul(imaginary, imaginary))
    energies = g.op("MatMul", power, g.constant(kaldi_filters().T.copy()))
    floored = g.op("Max", energies, g.constant(np.array(LOG_FLOOR)))
    logs = g.op("Log", floored)
    centred = g.op("Sub", logs, g.op("ReduceMean", logs, g.constant([0]), keepdims=1))
    g.output(g.op("Cast", centred, to=int(FLOAT)), "fbank", FLOAT, ["frames", BINS])


def _spectrum_bases() -> tuple[np.ndarray, np.ndarray]:
    """Frame → real and imaginary spectrum, (FRAME, FFT/2 + 1) float64 each.

    Removing the mean, pre-emphasis, window and transform are all linear, so one matrix does them.
    """
    centre = np.eye(FRAME) - 1 / FRAME
    emphasis = np.eye(FRAME) - PREEMPHASIS * np.eye(FRAME, k=1)  # column n takes .97 of sample n − 1
    emphasis[0, 0] = 1 - PREEMPHASIS  # Kaldi lets the first sample precede itself
    samples = np.arange(FRAME)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * samples / (FRAME - 1))) ** POVEY_POWER
    prepare = centre @ emphasis * window
    angles = 2 * np.pi * np.outer(samples, np.arange(FFT // 2 + 1)) / FFT
    return prepare @ np.cos(angles), prepare @ np.sin(angles)


def kaldi_filters() -> np.ndarray:
    """Triangular filters of height one on the HTK mel scale, in Kaldi's manner: (BINS, FFT/2 + 1) float64.

    Their slopes are straight in mels, not in Hz, and the Nyquist bin has no part in them.
    """

    def mel(hz: np.ndarray) -> np.ndarray:
        return 1127 * np.log1p(hz / 700)

    edges = np.linspace(mel(np.array(LOW_HZ)), mel(np.array(HIGH_HZ)), BINS + 2)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = mel(np.arange(FFT // 2) * SAMPLE_RATE / FFT)
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.pad(np.maximum(0, triangles), ((0, 0), (0, 1)))
