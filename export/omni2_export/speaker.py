"""A recording of a voice → the vector that gives the answer its voice (spec §7). Runs while an engine is built."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omni2_engine.audio.source import read_native
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.errors import AudioError
from omni2_export.checkpoint.campplus import check_campplus
from omni2_export.sinc import resample

Floats = NDArray[np.float32]

SAMPLE_RATE = 16_000  # Hz of the filter banks
BINS = 80
FRAME = 400  # samples, 25 ms
SHIFT = 160  # samples, 10 ms
FFT = 512  # samples
LOW_HZ, HIGH_HZ = 20.0, 8000.0
PREEMPHASIS = 0.97
POVEY_POWER = 0.85  # the Povey window is a Hann window to this power
LOG_FLOOR = 1.1920929e-7
SHORTEST = 0.25  # seconds; a shorter recording has too few frames for the network's statistics
SILENCE = 1e-3  # peak of a recording without sound (−60 dB)


def read_voice(audio: Floats, sample_rate: int) -> Floats:
    """Check a recording of a voice and resample it to 16 kHz.

    Args:
        audio: (n,) float32 in ±1, mono.
        sample_rate: in Hz.

    Returns:
        (m,) float32 at 16 kHz.

    Raises:
        AudioError: the recording is below 16 kHz, too short or silent.
    """
    if sample_rate < SAMPLE_RATE:
        raise AudioError(
            f"the voice prompt has {sample_rate} Hz, too few to tell voices apart",
            f"record it at {SAMPLE_RATE} Hz or more",
        )
    if len(audio) < SHORTEST * sample_rate:
        raise AudioError(
            f"the voice prompt lasts {len(audio) / sample_rate:.2f} s",
            "use a recording of about 3 to 10 s of one speaker",
        )
    if np.abs(audio).max() < SILENCE:
        raise AudioError("the voice prompt is silent", "use a recording of a person speaking")
    return resample(audio, sample_rate, SAMPLE_RATE)


def read_voice_file(path: Path) -> Floats:
    """A recording of a voice, (m,) float32 at 16 kHz.

    Raises:
        AudioError: the file is missing or not audio, or as in `read_voice`.
    """
    return read_voice(*read_native(path))


def fbank(audio: Floats) -> Floats:
    """Kaldi log filter banks, each bin's mean over time subtracted; computed in float64.

    Args:
        audio: (n,) float32 in ±1 at 16 kHz, n ≥ 400.

    Returns:
        (1 + (n − 400) // 160, 80) float32.
    """
    frames = np.lib.stride_tricks.sliding_window_view(audio.astype(np.float64), FRAME)[::SHIFT]
    frames = frames - frames.mean(axis=1, keepdims=True)
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)  # the first sample precedes itself
    window = np.hanning(FRAME) ** POVEY_POWER
    power = np.square(np.abs(np.fft.rfft((frames - PREEMPHASIS * previous) * window, FFT)))
    banks = np.log(np.maximum(power @ kaldi_filters().T, LOG_FLOOR))
    centred: Floats = (banks - banks.mean(axis=0)).astype(np.float32)
    return centred


def kaldi_filters() -> NDArray[np.float64]:
    """Triangular filters of height one on the HTK mel scale, in Kaldi's manner: (BINS, FFT/2 + 1) float64.

    Their slopes are straight in mels, not in Hz. The Nyquist bin has no part in them.
    """

    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1127 * np.log1p(hz / 700)

    low, high = mel(np.array([LOW_HZ, HIGH_HZ]))
    edges = np.linspace(low, high, BINS + 2)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = mel(np.arange(FFT // 2) * SAMPLE_RATE / FFT)
    triangles = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return np.pad(np.maximum(triangles, 0.0), ((0, 0), (0, 1)))


def speaker_vector(campplus: Path, audio: Floats) -> Floats:
    """Describe a voice by the checkpoint's own CAM++ network.

    Args:
        campplus: the checkpoint's `campplus.onnx`. Its first input and output are used; their names do not matter.
        audio: (n,) float32 in ±1 at 16 kHz, as `read_voice` gives it.

    Returns:
        (speaker,) float32, not normalised.

    Raises:
        CheckpointError: the file is no ONNX graph, or has a weight that is not finite.
        BackendError: ONNX Runtime cannot run it.
    """
    check_campplus(campplus)
    network = OnnxRuntimeBackend().load(campplus)
    outputs = network.run({next(iter(network.inputs)): fbank(audio)[None]})
    return np.asarray(next(iter(outputs.values())), np.float32).reshape(-1)
