"""Sound for turn detection: recordings with marks set by hand, and what people do not say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

Floats = NDArray[np.float32]
RATE = 16_000

# Seconds at which the speech begins and ends, read off the wave form by hand.
MARKS = {
    "examples/question.wav": (0.00, 3.40),
    "examples/sum.wav": (0.22, 1.70),
    "examples/questions/003-0.ogg": (0.16, 2.05),
    "shared/audio/helpful_base_0.wav": (0.09, 4.40),
    "shared/audio/helpful_base_1.wav": (0.10, 2.02),
    "shared/audio/helpful_base_4.wav": (0.09, 1.79),
    "shared/audio/prompt_en.wav": (0.03, 3.01),
}
DROWNED = {  # ends of those whose last sounds, 15 to 25 dB fainter than the rest, drown in what disturbs
    ("shared/audio/helpful_base_1.wav", "pink noise"): 1.84,
    ("shared/audio/helpful_base_1.wav", "clicks"): 1.84,
    ("shared/audio/helpful_base_4.wav", "music"): 1.72,
}
GAPS = {"examples/sum.wav": 0.88, "shared/audio/helpful_base_1.wav": 0.94}  # between two words


def recording(repository: Path, name: str) -> Floats:
    """A recording at 16 kHz, mono; the test is skipped where it is not here."""
    path = (repository.parent if name.startswith("shared/") else repository) / name
    if not path.is_file():
        pytest.skip(f"given material ../{name} is not here; put it beside the checkout to run this test")
    return speech(path)


def speech(path: Path) -> Floats:
    """A recording at 16 kHz, mono."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, RATE, quality="HQ").astype(np.float32)


def silence(seconds: float) -> Floats:
    return np.zeros(round(seconds * RATE), np.float32)


def noise(seconds: float, seed: int = 0) -> Floats:
    """Pink noise of RMS 1, as rooms have it."""
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    return _unit(np.fft.irfft(spectrum, count))


def hiss(seconds: float, seed: int = 0) -> Floats:
    """White noise of RMS 1."""
    return _unit(np.random.default_rng(seed).standard_normal(round(seconds * RATE)))


def music(seconds: float) -> Floats:
    """Three-part chords of plucked strings with overtones, two a second, RMS 1."""
    time = np.arange(round(0.5 * RATE)) / RATE
    chords = [(220, 277.2, 329.6), (196, 246.9, 293.7), (174.6, 220, 261.6), (164.8, 207.7, 246.9)]
    bars = []
    for chord in chords:
        notes = sum(np.sin(2 * np.pi * k * f * time) * np.exp(-(2 + k) * time) / k for f in chord for k in range(1, 7))
        bars.append(np.asarray(notes))
    tune = np.concatenate(bars * (round(seconds / 2) + 1))[: round(seconds * RATE)]
    return _unit(tune)


def clicks(seconds: float, seed: int = 0) -> Floats:
    """Four loud clicks of 2 ms a second, as keys and mice make them."""
    rng = np.random.default_rng(seed)
    sound = np.zeros(round(seconds * RATE), np.float32)
    for at in rng.integers(0, len(sound) - 32, round(4 * seconds)):
        sound[at : at + 32] += (
            0.5 * rng.standard_normal(32).astype(np.float32) * np.linspace(1, 0, 32, dtype=np.float32)
        )
    return sound


def at_ratio(sound: Floats, other: Floats, decibels: float) -> Floats:
    """`sound` with `other`, of RMS 1, by a number of decibels below the sound's own RMS where it is loud."""
    loud = np.sqrt(np.mean(np.square(sound[np.abs(sound) > 0.05 * np.abs(sound).max()])))
    return sound + other[: len(sound)] * loud * np.float32(10 ** (-decibels / 20))


def _unit(sound: NDArray[np.float64]) -> Floats:
    return (sound / np.sqrt(np.mean(np.square(sound)))).astype(np.float32)
