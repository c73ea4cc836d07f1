"""Smart Turn v3: is the sentence over? https://github.com/pipecat-ai/smart-turn (BSD-2-Clause; its file is not ours)"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import omni2_engine  # noqa: F401 (switches ONNX Runtime's usage data off before it is imported)
from omni2_engine.errors import BackendError
from omni2_engine.live.detection.base import RATE, Floats

SECONDS = 8
MELS, FRAMES = 80, 800
FFT, HOP = 400, 160  # samples, as Whisper has them
COMPLETE = 0.5  # probability


class SmartTurn:
    """See `SentenceEnd`. A call takes some tens of milliseconds on one thread, and one is made at a time.

    Args:
        path: `smart-turn-v3.*.onnx`.

    Raises:
        BackendError: ONNX Runtime cannot run the file, or it is another model.
    """

    def __init__(self, path: str | Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise BackendError(f"{path} cannot be run: {error}", "name a smart-turn-v3 ONNX file") from None
        if [(i.name, i.shape[1:]) for i in self._session.get_inputs()] != [("input_features", [MELS, FRAMES])]:
            raise BackendError(f"{path} is not Smart Turn v3", "name a smart-turn-v3 ONNX file")

    def __call__(self, speech: Floats) -> bool:
        """See `SentenceEnd`."""
        return self.probability(speech) > COMPLETE

    def probability(self, speech: Floats) -> float:
        """That the sentence is over.

        Args:
            speech: (n,) float32 at 16 kHz, of which the last 8 s are judged.
        """
        (result,) = self._session.run(None, {"input_features": log_mel(speech)[None]})
        return float(result[0, 0])


def log_mel(speech: Floats) -> Floats:
    """Whisper's log-mel spectrogram of 8 s that end with the speech, normalised to unit variance.

    Args:
        speech: (n,) float32 at 16 kHz.

    Returns:
        (MELS, FRAMES) float32.
    """
    sound = np.zeros(SECONDS * RATE, np.float32)
    kept = speech[-len(sound) :]
    sound[len(sound) - len(kept) :] = kept
    sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    windows = sliding_window_view(np.pad(sound, FFT // 2, mode="reflect"), FFT)[::HOP][:FRAMES]
    power = np.abs(np.fft.rfft(windows * np.hanning(FFT + 1)[:-1])) ** 2
    spectrogram = np.log10(np.maximum(power @ mel_filters(MELS).T, 1e-10))
    spectrogram = (np.maximum(spectrogram, spectrogram.max() - 8) + 4) / 4
    features: Floats = spectrogram.T.astype(np.float32)
    return features


@cache
def mel_filters(bands: int) -> NDArray[np.float64]:
    """Triangular filters on Slaney's mel scale, each of unit area: (bands, FFT // 2 + 1), for 16 kHz."""
    edges = _hertz(np.linspace(0, _mels(RATE / 2), bands + 2))[:, None]
    bins = np.linspace(0, RATE / 2, FFT // 2 + 1)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return triangles


LINEAR = 200 / 3  # Hz per mel below 1 kHz, where there are 15 mels
OCTAVES = np.log(6.4) / 27  # above it, per mel


def _mels(hertz: float) -> float:
    return hertz / LINEAR if hertz < 1000 else 15 + float(np.log(hertz / 1000)) / OCTAVES


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mels < 15, mels * LINEAR, 1000 * np.exp(OCTAVES * (mels - 15)))
