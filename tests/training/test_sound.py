"""Mels, features in step with the sound, losses that know better from worse, and the voices that ask."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from omni2_training.features import LOWEST, UNIT, utterance
from omni2_training.listening.voices import SAMPLE_RATE, Asking, coloured_noise, heard
from omni2_training.mel import BINS, HOP, SPREAD, filters, log_mel
from omni2_training.models.spectral import spectral_losses
from omni2_training.teacher.phonemes import phonemes
from omni2_training.train_vocoder import pitch_loss

RATE = 24_000


def tone(hz: float, seconds: float, level: float = 0.3) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * hz * torch.arange(round(seconds * RATE)) / RATE)[None]


@pytest.mark.parametrize("hz", [200.0, 1000.0, 4000.0])
def test_a_tone_is_loudest_in_its_own_bin(hz: float) -> None:
    mel = log_mel(tone(hz, 1.0))
    assert mel.shape == (1, BINS, RATE // HOP)
    weights = filters(BINS, 1920, RATE, 8000.0)
    own = int(weights[:, round(hz / (RATE / 1920))].argmax())
    assert set(mel[0, :, 5:-5].argmax(0).tolist()) == {own}
    louder = log_mel(tone(hz, 1.0, 0.6))
    assert torch.allclose((louder - mel)[0, own, 5:-5] * SPREAD, torch.tensor(2.0).log(), atol=1e-3)


def test_features_are_in_step_with_the_sound() -> None:
    durations = np.array([4, 10, 6, 3], np.int16)  # of 25 ms
    frames = int(durations.sum())
    pitch = np.repeat([8.0, 220.0, 110.0, 0.0], 2 * durations).astype(np.float32)
    speech = {
        "pcm": np.ones(600 * frames, np.int16),
        "symbols": np.array([0, 5, 7, 0], np.int16),
        "durations": durations,
        "pitch": pitch,
    }
    u = utterance("…", False, speech)
    assert len(u.pcm) % UNIT == 0 and len(u.pcm) == UNIT * u.units and len(u.mel) == len(u.phones) == 2 * u.units
    edges = 25.0 * np.cumsum(durations)  # ms
    for frame in range(len(u.phones)):
        middle = 20.0 * (frame + 0.5)
        expected = min(int(np.searchsorted(edges, middle, side="right")), 3)
        assert u.phones[frame] == speech["symbols"][expected]
        assert u.pitch[frame] == (0 if expected in (0, 3) else (220, 110)[expected - 1])
    assert LOWEST > 8


def test_spectral_losses_grow_with_the_difference() -> None:
    true = tone(300, 0.5)
    same, near, far = (spectral_losses(wave, true) for wave in (true, tone(303, 0.5), tone(900, 0.5, 0.1)))
    for name in ("stft", "mel"):
        assert same[name] < 1e-4 < near[name] < far[name]


def test_pitch_loss_knows_silence_from_voice() -> None:
    true = torch.tensor([[0.0, 200.0, 200.0]])
    perfect = pitch_loss(torch.tensor([[2.0, 200.0, 200.0]]), true, 10.0)
    octave = pitch_loss(torch.tensor([[2.0, 200.0, 400.0]]), true, 10.0)
    spoken = pitch_loss(torch.tensor([[150.0, 200.0, 200.0]]), true, 10.0)
    assert perfect == 0 < octave and spoken > 0


def test_noise_has_the_slope_and_level_asked_for() -> None:
    white, pink = (coloured_noise(1 << 16, tilt, np.random.default_rng(0)) for tilt in (0.0, 1.0))
    for noise, slope in ((white, 0.0), (pink, -3.0)):
        assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0, rel=1e-3)
        power = np.abs(np.fft.rfft(noise)) ** 2
        octaves = [10 * np.log10(power[1 << k : 2 << k].mean()) for k in range(6, 15)]
        assert np.polyfit(range(len(octaves)), octaves, 1)[0] == pytest.approx(slope, abs=0.3)


@pytest.mark.skipif(not (shutil.which("flite") and shutil.which("espeak-ng")), reason="flite or espeak-ng is missing")
@pytest.mark.parametrize("voice", ["flite:slt", "espeak:en-us+f2"])
def test_questions_are_asked_at_the_speed_and_level_drawn(voice: str) -> None:
    slow, fast = (Asking(voice, speed, 50, 0.1, 40.0, 0.0, 0.25, 1) for speed in (0.85, 1.25))
    waves = [heard("What is seven plus five?", asking) for asking in (slow, fast)]
    assert len(waves[0]) > 1.2 * len(waves[1])
    lead = round(0.25 * SAMPLE_RATE)
    for wave in waves:
        assert np.sqrt(np.mean(wave[:lead] ** 2)) < 0.005  # only noise, 40 dB below the voice
        assert np.sqrt(np.mean(wave[lead:] ** 2)) == pytest.approx(0.1, rel=0.1)


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is missing")
def test_phonemes_of_the_teacher() -> None:
    assert phonemes("Good morning! How can I help you?") == "ɡˈʊd mˈɔɹnɪŋ! hˌW kæn I hˈɛlp ju?"
    assert phonemes("The word cat is spelled C, A, T.").endswith("sˈi, ˈA, tˈi.")  # the letter, not the article
