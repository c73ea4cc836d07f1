"""Who asks: free synthesisers at many speeds and pitches, in more or less noise."""

from __future__ import annotations

import io
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
Floats = NDArray[np.float32]
FLITE = ("slt", "rms", "awb", "kal16")
ESPEAK = ("en-us", "en-us+m3", "en-us+f2", "en-us+m7", "en-us+f4", "en-gb", "en-gb+m1", "en-gb+f3")
FLITE_SHARE = 0.7  # of the questions; the others are spoken by espeak-ng
SPEEDS = (0.85, 1.25)
LEVELS = (0.03, 0.25)  # RMS of the speech
SNR = (8.0, 45.0)  # dB
LEAD = (0.0, 0.5)  # seconds before the first word


@dataclass(frozen=True)
class Asking:
    """How one question is spoken and heard: everything that chance decides."""

    voice: str
    speed: float
    pitch: int
    level: float
    snr: float
    tilt: float
    lead: float
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Asking:
        """A way of asking."""
        voice = f"flite:{rng.choice(FLITE)}" if rng.random() < FLITE_SHARE else f"espeak:{rng.choice(ESPEAK)}"
        return cls(
            voice=voice,
            speed=float(rng.uniform(*SPEEDS)),
            pitch=int(rng.integers(30, 71)),
            level=float(np.exp(rng.uniform(*np.log(LEVELS)))),
            snr=float(rng.uniform(*SNR)),
            tilt=float(rng.uniform(0.0, 1.0)),
            lead=float(rng.uniform(*LEAD)),
            seed=int(rng.integers(2**31)),
        )


def heard(text: str, asking: Asking) -> Floats:
    """A question as a microphone may hear it, (n,) float32 at 16 kHz.

    Raises:
        FileNotFoundError: flite or espeak-ng is not installed.
    """
    speech = spoken(text, asking)
    speech = speech * (asking.level / max(float(np.sqrt(np.mean(speech**2))), 1e-6))
    lead = np.zeros(int(asking.lead * SAMPLE_RATE), np.float32)
    clean = np.concatenate([lead, speech])
    noise = coloured_noise(len(clean), asking.tilt, np.random.default_rng(asking.seed))
    return np.clip(clean + noise * (asking.level * 10 ** (-asking.snr / 20)), -1, 1).astype(np.float32)


def spoken(text: str, asking: Asking) -> Floats:
    """The bare voice, (n,) float32 at 16 kHz."""
    engine, _, voice = asking.voice.partition(":")
    if engine == "flite":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "speech.wav"
            stretch = f"duration_stretch={1 / asking.speed:.3f}"
            command = ["flite", "-voice", voice, "--setf", stretch, "-t", text, "-o", str(path)]
            subprocess.run(command, check=True, capture_output=True)
            audio, rate = soundfile.read(path, dtype="float32")
    else:
        command = ["espeak-ng", "-v", voice, "-s", str(round(165 * asking.speed)), "-p", str(asking.pitch), "--stdout"]
        made = subprocess.run([*command, text], check=True, capture_output=True).stdout
        audio, rate = soundfile.read(io.BytesIO(made), dtype="float32")
    return np.asarray(soxr.resample(audio, rate, SAMPLE_RATE), np.float32)


def coloured_noise(count: int, tilt: float, rng: np.random.Generator) -> Floats:
    """Noise of unit RMS whose power falls with frequency to the power `tilt`: 0 is white, 1 pink."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** (tilt / 2)
    noise = np.fft.irfft(spectrum, count)
    return (noise / max(float(np.sqrt(np.mean(noise**2))), 1e-9)).astype(np.float32)
