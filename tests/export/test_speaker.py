"""A recording of a voice → its vector: resampling, Kaldi filter banks, the network, unusable recordings."""

from __future__ import annotations

from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
import torch

from omni2_engine.audio.source import read_native
from omni2_engine.errors import AudioError
from omni2_export.reference import speaker
from omni2_export.sinc import resample
from omni2_export.speaker import fbank, read_voice, speaker_vector


@pytest.fixture(scope="module")
def decoder_units(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "goldens" / "decoder_units.npz") as arrays:
        return dict(arrays)


def worst(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


def test_vector_of_golden(decoder_units: dict[str, np.ndarray], shared: Path) -> None:
    voice = read_voice(*read_native(shared / "audio" / "prompt_en.wav"))
    vector = speaker_vector(shared / "checkpoints" / "tiny" / "cosy2_decoder" / "campplus.onnx", voice)
    assert worst(vector, decoder_units["embedding"][0]) <= 1e-3


@pytest.mark.parametrize(
    ("audio", "rate", "problem"),
    [
        (np.ones(16_000, np.float32), 8_000, "8000 Hz"),
        (np.zeros(48_000, np.float32), 24_000, "silent"),
        (np.ones(399, np.float32), 16_000, "lasts 0.02 s"),
    ],
)
def test_unusable_voice_prompts(audio: np.ndarray, rate: int, problem: str) -> None:
    with pytest.raises(AudioError, match=problem) as caught:
        read_voice(audio, rate)
    assert caught.value.remedy


def test_fbank_of_golden(decoder_units: dict[str, np.ndarray]) -> None:
    assert worst(fbank(decoder_units["prompt_16k"][0]), decoder_units["fbank_meannorm"]) <= 1e-3


@pytest.mark.parametrize("samples", [400, 559, 560, 16_000])
def test_fbank_is_kaldis_and_the_references(samples: int) -> None:
    noise = np.random.default_rng(samples).standard_normal(samples)
    audio = (0.2 * noise + 0.05).astype(np.float32)  # an offset, which Kaldi removes
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = 80
    options.mel_opts.low_freq, options.mel_opts.high_freq = 20, 8000
    kaldi = kaldi_native_fbank.OnlineFbank(options)
    kaldi.accept_waveform(16_000, audio.tolist())
    kaldi.input_finished()
    expected = np.stack([kaldi.get_frame(i) for i in range(kaldi.num_frames_ready)])
    assert worst(fbank(audio), expected - expected.mean(axis=0)) <= 1e-3
    assert worst(fbank(audio), speaker.fbank(torch.from_numpy(audio)).numpy()) <= 1e-3


def test_voice_prompt_is_resampled_as_by_the_original(shared: Path, decoder_units: dict[str, np.ndarray]) -> None:
    audio, rate = soundfile.read(shared / "audio" / "prompt_en.wav", dtype="float32")
    assert worst(resample(audio, rate, 16_000), decoder_units["prompt_16k"][0]) <= 1e-5


@pytest.mark.parametrize(("rate", "new_rate"), [(48_000, 16_000), (44_100, 16_000), (17_000, 16_000), (8_000, 24_000)])
@pytest.mark.parametrize("samples", [1, 37, 5_000])
def test_resampling_at_other_rates(rate: int, new_rate: int, samples: int) -> None:
    audio = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    expected = speaker.resample(torch.from_numpy(audio), rate, new_rate).numpy()
    assert worst(resample(audio, rate, new_rate), expected) <= 1e-5


def test_resampling_between_rates_without_a_common_factor() -> None:
    seconds = np.arange(44_101) / 44_101
    resampled = resample(np.sin(2 * np.pi * 440 * seconds).astype(np.float32), 44_101, 16_000)
    inside = slice(100, -100)  # the filter reaches beyond both ends
    assert worst(resampled[inside], np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)[inside]) < 2e-3
