"""Speaker front-end, flow, vocoder and the streaming decoder of the torch reference against the original's arrays."""

from __future__ import annotations

from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
import torch

from omni2_engine.stages.flow_solver import FlowSolver
from omni2_export.checkpoint import Checkpoint
from omni2_export.reference.build import Reference
from omni2_export.reference.speaker import fbank, resample, speaker_vector
from omni2_export.reference.speech_decoder import DecodedCall, TorchSpeechDecoder, Utterance
from omni2_export.reference.vocoder import SourceDraws

from .arrays import Arrays, error, golden, relative


@pytest.fixture(scope="module")
def units(shared: Path) -> Arrays:
    return golden(shared, "decoder_units")


def test_speaker(units: Arrays, shared: Path, checkpoint: Checkpoint, reference: Reference) -> None:
    prompt, rate = soundfile.read(shared / "audio" / "prompt_en.wav", dtype="float32", always_2d=True)
    audio = resample(torch.from_numpy(prompt.mean(1)), rate, 16_000)
    assert error(audio, units["prompt_16k"][0]) <= 1e-5
    audio = torch.from_numpy(units["prompt_16k"][0])
    assert error(fbank(audio), units["fbank_meannorm"]) <= 1e-3
    assert checkpoint.campplus is not None
    embedding = speaker_vector(checkpoint.campplus, audio)
    assert error(embedding, units["embedding"]) <= 1e-3
    assert error(reference.flow.speaker(torch.from_numpy(units["embedding"])), units["spks"]) <= 1e-3


@pytest.mark.parametrize(("rate", "new_rate"), [(48_000, 16_000), (44_100, 16_000), (16_000, 24_000)])
def test_resampling_keeps_a_tone(rate: int, new_rate: int) -> None:
    tone = torch.sin(2 * torch.pi * 440.0 * torch.arange(rate, dtype=torch.float64) / rate).float()
    expected = np.sin(2 * np.pi * 440.0 * np.arange(new_rate) / new_rate)
    middle = slice(new_rate // 10, -new_rate // 10)
    assert error(resample(tone, rate, new_rate)[middle], expected[middle]) <= 2e-3


def test_fbank_equals_kaldi() -> None:
    audio = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = 8000.0
    kaldi = kaldi_native_fbank.OnlineFbank(options)
    kaldi.accept_waveform(16_000, audio.tolist())
    kaldi.input_finished()
    expected = np.stack([kaldi.get_frame(i) for i in range(kaldi.num_frames_ready)])
    assert error(fbank(audio), expected - expected.mean(0)) <= 1e-3


def test_flow_encoder(units: Arrays, reference: Reference) -> None:
    flow = reference.flow
    for name in [name for name in units if name.startswith("enc") and name.endswith("_tok")]:
        call = name.removesuffix("_tok")
        trace = flow.encoder.trace(flow.embed_units(torch.from_numpy(units[name])))
        found = {
            "out": trace.out,
            "mu": flow.encoder_proj(trace.out),
            "embed": trace.embed,
            "posemb": trace.positions[None],
            "prelook": trace.prelookahead,
            "layers": trace.layers,
            "up": trace.up,
        }
        checked = [part for part in found if f"{call}_{part}" in units]
        assert {"out", "mu"} <= set(checked)
        for part in checked:
            assert relative(found[part], units[f"{call}_{part}"]) <= 1e-4, f"{call}_{part}"


def test_estimator(units: Arrays, reference: Reference) -> None:
    for name in [name for name in units if name.startswith("est") and name.endswith("_out")]:
        call = name.removesuffix("_out")
        x, mu, speaker, t = (torch.from_numpy(units[f"{call}_{part}"]) for part in ("x", "mu", "spks", "t"))
        velocity = reference.flow.decoder.estimator(x, mu, speaker, torch.zeros_like(mu), t)
        assert relative(velocity, units[name]) <= 1e-4, call


def test_time_span(units: Arrays, reference: Reference) -> None:
    assert error(reference.flow.decoder.time_span(torch.device("cpu")), units["t_span"]) <= 1e-7
    assert np.allclose(FlowSolver().times(), units["t_span"], atol=1e-7)


def test_vocoder(units: Arrays, reference: Reference) -> None:
    mel, source = torch.from_numpy(units["hift_mel"]), torch.from_numpy(units["hift_s"])
    assert error(reference.vocoder.f0(mel), units["hift_f0"]) <= 1e-3
    real, imaginary = reference.vocoder.stft(source)
    assert error(real, units["hift_stft_real"]) <= 1e-3
    assert error(imaginary, units["hift_stft_imag"]) <= 1e-3
    assert error(reference.vocoder.decode(mel, source), units["hift_wav"]) <= 1e-4


def test_source(shared: Path, reference: Reference) -> None:
    stream = golden(shared, "stream_C")
    overlap = reference.config.vocoder.overlap
    for k in range(len(stream["schedule"])):
        draws = SourceDraws(*(torch.from_numpy(stream[f"c{k}_{name}"]) for name in ("phase", "sine_noise")))
        source = reference.vocoder.source(torch.from_numpy(stream[f"c{k}_f0"]), draws)
        if k:
            source[:, :, :overlap] = torch.from_numpy(stream[f"c{k - 1}_source"][:, :, -overlap:])
        assert error(source, stream[f"c{k}_source"]) <= 1e-3, k


def decoder_of(reference: Reference, units: Arrays) -> TorchSpeechDecoder:
    config = reference.config.flow_encoder
    embedding, noise = torch.from_numpy(units["embedding"]), torch.from_numpy(units["rand_noise"])
    return TorchSpeechDecoder(
        reference.flow, reference.vocoder, embedding, noise, ratio=config.ratio, lookahead=config.lookahead
    )


def run_schedule(decoder: TorchSpeechDecoder, units: list[int], schedule: list[int]) -> list[tuple[DecodedCall, int]]:
    """All calls with the units voiced after each."""
    utterance, generator, calls, start = Utterance(), torch.Generator().manual_seed(0), [], 0
    for k, size in enumerate(schedule):
        voice = decoder.finish if k == len(schedule) - 1 else decoder.push
        call = voice(utterance, units[start : start + size], generator)
        calls.append((call, utterance.voiced))
        start += size
    return calls


@pytest.mark.parametrize("name", ["stream_A", "stream_C"])
def test_streaming(
    name: str, shared: Path, units: Arrays, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = golden(shared, name)
    sources = iter(torch.from_numpy(stream[f"c{k}_source"]) for k in range(len(stream["schedule"])))
    monkeypatch.setattr(reference.vocoder, "source", lambda f0, draws: next(sources))
    calls = run_schedule(decoder_of(reference, units), stream["units"].tolist(), stream["schedule"].tolist())
    for k, (call, voiced) in enumerate(calls):
        assert relative(call.mel, stream[f"c{k}_mel_full"]) <= 5e-4, k
        assert relative(call.vocoder_mel, stream[f"c{k}_hift_mel_in"]) <= 5e-4, k
        assert error(call.f0, stream[f"c{k}_f0"]) <= 1e-3, k
        assert error(call.source, stream[f"c{k}_source"]) == 0, k
        if f"c{k}_wav_raw" in stream:  # a long stream's file has it for its first calls only
            assert error(call.raw, stream[f"c{k}_wav_raw"]) <= 1e-4, k
        assert error(call.wav, stream[f"c{k}_wav"]) <= 1e-3, k
        assert voiced == stream[f"c{k}_token_offset_after"], k
    assert error(torch.cat([call.wav for call, _ in calls], dim=1), stream["wav"]) <= 1e-3


def test_offline(shared: Path, units: Arrays, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    offline = golden(shared, "offline_C")
    monkeypatch.setattr(reference.vocoder, "source", lambda f0, draws: torch.from_numpy(offline["source"]))
    [(call, _)] = run_schedule(decoder_of(reference, units), offline["units"].tolist(), [len(offline["units"])])
    assert relative(call.mel, offline["mel_full"]) <= 5e-4
    assert error(call.f0, offline["f0"]) <= 1e-3
    assert error(call.wav, offline["wav"]) <= 1e-4


def test_streamed_length_is_the_units_length(units: Arrays, reference: Reference) -> None:
    calls = run_schedule(decoder_of(reference, units), list(range(31)), [7, 9, 11, 4])
    config = reference.config
    expected = 31 * config.flow_encoder.ratio * config.vocoder.hop
    assert sum(call.wav.shape[1] for call, _ in calls) == expected
    assert calls[0][0].wav.shape[1] == 0  # seven units fill no more than the overlap
