"""Who asks: free synthesisers at many speeds and pitches, in more or less noise."""

from __future__ import annotations

import io
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from omni2_training.listening.unheard import coloured_noise, unheard

SAMPLE_RATE = 16_000
Floats = NDArray[np.float32]
FLITE = ("slt", "rms", "awb", "kal16")
ACCENTS = ("en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
TIMBRES = ("", "", "+m1", "+m3", "+m4", "+m5", "+m7", "+m8", "+f1", "+f2", "+f3", "+f4", "+f5")
FLITE_SHARE = 0.6  # of the questions; the others are spoken by espeak-ng
SPEEDS = (0.8, 1.25)
LEVELS = (0.03, 0.25)  # RMS of the speech
SNR = (8.0, 45.0)  # dB
LEAD = (0.0, 0.5)  # seconds before the first word
LONGEST = 7.9  # seconds of a question: a longer one is spoken faster, so that the encoder's window holds it


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
        espeak = f"espeak:{rng.choice(ACCENTS)}{rng.choice(TIMBRES)}"
        voice = f"flite:{rng.choice(FLITE)}" if rng.random() < FLITE_SHARE else espeak
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
    """A question as a microphone may hear it, (n,) float32 at 16 kHz; without a text, something else than speech.

    Raises:
        FileNotFoundError: flite or espeak-ng is not installed.
    """
    if not text:
        return unheard(np.random.default_rng(asking.seed), SAMPLE_RATE)
    speech = spoken(text, asking)
    room = LONGEST - asking.lead
    if (seconds := len(speech) / SAMPLE_RATE) > room:
        speech = spoken(text, replace(asking, speed=asking.speed * seconds / room * 1.03))[: int(room * SAMPLE_RATE)]
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
