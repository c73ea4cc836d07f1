"""What a microphone hears when no person speaks to it: silence, noise, hum, clicks, music."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SECONDS = (0.3, 7.5)
LEVELS = (0.002, 0.3)  # RMS of what is no silence
NOTE = (0.12, 0.7)  # seconds of a note
LOWEST, RANGE = 110.0, 36  # Hz, and semitones above it
SCALE = (0, 2, 4, 5, 7, 9, 11)
HUM = (50.0, 60.0, 100.0, 120.0)  # Hz


def unheard(rng: np.random.Generator, rate: int) -> Floats:
    """A few seconds without a word, (n,) float32."""
    count = int(rng.uniform(*SECONDS) * rate)
    makers: tuple[Callable[[int, int, np.random.Generator], NDArray[np.floating]], ...] = (
        _silence, _noise, _noise, _hum, _clicks, _music, _music,
    )  # fmt: skip
    made = makers[int(rng.integers(len(makers)))](count, rate, rng)
    size = float(np.sqrt(np.mean(made**2)))
    level = float(np.exp(rng.uniform(*np.log(LEVELS))))
    floor = rng.standard_normal(count) * rng.choice([0.0, 1e-5, 1e-4, 1e-3])
    return np.clip(made * (level / size if size else 0.0) + floor, -1, 1).astype(np.float32)


def coloured_noise(count: int, tilt: float, rng: np.random.Generator) -> Floats:
    """Noise of unit RMS whose power falls with frequency to the power `tilt`: 0 is white, 1 pink."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** (tilt / 2)
    noise = np.fft.irfft(spectrum, count)
    return (noise / max(float(np.sqrt(np.mean(noise**2))), 1e-9)).astype(np.float32)


def _silence(count: int, rate: int, rng: np.random.Generator) -> NDArray[np.floating]:
    return np.zeros(count)


def _noise(count: int, rate: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """White to brown, steady or coming and going."""
    noise = coloured_noise(count, float(rng.uniform(0, 2)), rng)
    if rng.random() < 0.5:
        return noise
    swell = 1 + 0.9 * np.sin(2 * np.pi * rng.uniform(0.2, 3) * np.arange(count) / rate + rng.uniform(0, 6))
    return noise * swell


def _hum(count: int, rate: int, rng: np.random.Generator) -> NDArray[np.floating]:
    time = np.arange(count) / rate
    base = float(rng.choice(HUM))
    return sum(rng.uniform(0, 1) / k * np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6)) for k in range(1, 8))


def _clicks(count: int, rate: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """Steps, keys, a hand on the microphone: short noises that die away."""
    out = np.zeros(count)
    for _ in range(int(rng.integers(1, 2 + 4 * count // rate))):
        length = int(rng.uniform(0.005, 0.15) * rate)
        burst = coloured_noise(length, float(rng.uniform(0, 2)), rng) * np.exp(-6 * np.arange(length) / length)
        at = int(rng.integers(0, max(1, count - length)))
        out[at : at + length] += (rng.uniform(0.2, 1) * burst)[: count - at]
    return out


def _music(count: int, rate: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """Notes of one scale, some of them chords, some with a beat behind them."""
    out = np.zeros(count)
    partials = rng.uniform(0, 1, 6) / np.arange(1, 7) ** rng.uniform(0.5, 2)
    fade, key = float(rng.uniform(1, 6)), int(rng.integers(12))
    at = 0
    while at < count:
        length = int(rng.uniform(*NOTE) * rate)
        time = np.arange(min(length, count - at)) / rate
        for _ in range(int(rng.choice([1, 1, 2, 3]))):
            step = key + 12 * int(rng.integers(RANGE // 12)) + int(rng.choice(SCALE))
            base = LOWEST * 2 ** (step / 12)
            tone = sum(p * np.sin(2 * np.pi * base * k * time) for k, p in enumerate(partials, 1))
            out[at : at + length] += tone * np.exp(-fade * time) * np.minimum(1, time * 100)
        at += length
    if rng.random() < 0.4:
        out += 0.5 * float(np.abs(out).max()) * _beat(count, rate, rng)
    return out


def _beat(count: int, rate: int, rng: np.random.Generator) -> NDArray[np.floating]:
    period = int(rng.uniform(0.25, 0.8) * rate)
    fall = np.exp(-30 * (np.arange(count) % period) / rate)
    return fall * rng.uniform(-1, 1, count)
