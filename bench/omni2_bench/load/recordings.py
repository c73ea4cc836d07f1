"""Recorded questions as a microphone sends them: frames of 24 kHz, 16 bits, and where the speech in them ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from omni2_engine.audio.source import read_native
from omni2_engine.errors import SettingError

RATE = 24_000  # Hz, of the protocol's audio/pcm
FRAME = 480  # samples: 20 ms
VOICED = 0.05  # of the loudest frame's RMS: frames above it are speech


@dataclass(frozen=True)
class RecordedQuestion:
    """A question.

    Args:
        frames: 20 ms each, as little-endian 16 bits.
        first, last: indices of the first and the last voiced frame.
    """

    frames: tuple[bytes, ...]
    first: int
    last: int


def read_recording(path: Path) -> RecordedQuestion:
    """Read a recording, and find its speech by level.

    Raises:
        AudioError: it cannot be read.
        SettingError: it is silent.
    """
    samples, rate = read_native(path)
    return recording(samples if rate == RATE else soxr.resample(samples, rate, RATE), str(path))


def recording(samples: NDArray[np.float32], name: str = "the recording") -> RecordedQuestion:
    """Cut samples at 24 kHz, (n,) float in -1 … 1, into frames.

    Raises:
        SettingError: they are silent.
    """
    padded = np.pad(samples, (0, -len(samples) % FRAME))
    blocks = padded.reshape(-1, FRAME)
    levels = np.sqrt(np.mean(np.square(blocks, dtype=np.float64), axis=1)) if len(blocks) else np.zeros(1)
    if not levels.max() > 0:
        raise SettingError(f"{name} is silent", "use recordings of spoken questions")
    voiced = np.flatnonzero(levels > VOICED * levels.max())
    pcm = (np.clip(blocks, -1, 1) * 32767).astype("<i2")
    return RecordedQuestion(tuple(block.tobytes() for block in pcm), int(voiced[0]), int(voiced[-1]))
