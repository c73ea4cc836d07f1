"""The signal graphs against golden arrays and, at other dimensions, against the torch reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.backends.onnxruntime.graph import OnnxRuntimeGraph
from omni2_engine.model.config import EncoderConfig, VocoderConfig
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.graphs.builder import FLOAT, GraphBuilder
from omni2_export.graphs.log_mel import build_log_mel
from omni2_export.graphs.vocoder import build_vocoder
from omni2_export.graphs.vocoder_source import harmonic_source, overlap_add
from omni2_export.graphs.weights import WeightWriter
from omni2_export.reference import frontend
from omni2_export.reference.vocoder import HiFT, SourceDraws

Build = Callable[[GraphBuilder], None]


class StateDict:
    """A torch module's parameters as the builders read a checkpoint's."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._arrays = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}

    def names(self) -> list[str]:
        return list(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._arrays[name].shape

    def dtype(self, name: str) -> np.dtype:
        return self._arrays[name].dtype

    def read(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self._arrays[name][start:stop]


def load(folder: Path, build: Build, inner: tuple[str, ...] = ()) -> OnnxRuntimeGraph:
    """Build a graph and load it, with some of its inner values as further outputs."""
    path = folder / "graph.onnx"
    with WeightWriter(folder / "graph.weights") as writer:
        graph = GraphBuilder("graph", writer)
        build(graph)
        graph.save(path)
    if inner:
        model = onnx.load(path, load_external_data=False)
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
        path.write_bytes(model.SerializeToString())
    return OnnxRuntimeBackend(threads=1).load(path)


def worst(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max())


@pytest.fixture(scope="module")
def decoder_units(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "goldens" / "decoder_units.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def checkpoint(shared: Path) -> Checkpoint:
    tiny = shared / "checkpoints" / "tiny"
    return open_checkpoint(
        tiny / "omni2_tiny", decoder=tiny / "cosy2_decoder", speech_encoder=tiny / "speech_encoder" / "large-v3.pt"
    )


# -- log-mel -----------------------------------------------------------------------------------------------------------


def encoder_config(mel_bins: int, context: int) -> EncoderConfig:
    return EncoderConfig(
        mel_bins=mel_bins, context=context, width=8, heads=1, layers=1, ffn=8, stack=5, projector_hidden=8, output=8
    )


@pytest.mark.parametrize("name", ["llm_1", "llm_4"])
def test_log_mel_of_goldens(shared: Path, tmp_path: Path, name: str) -> None:
    with np.load(shared / "goldens" / f"{name}.npz") as arrays:
        speech, expected = arrays["audio16k_i16"], arrays["log_mel"]
    audio = np.zeros((1, 480_000), np.float32)
    audio[0, : len(speech)] = speech / np.float32(32768)
    graph = load(tmp_path, lambda g: build_log_mel(g, encoder_config(128, 1500)))
    assert worst(graph.run({"audio": audio})["log_mel"][0].T, expected) <= 1e-4


@pytest.mark.parametrize(("mel_bins", "context"), [(80, 1500), (40, 33), (128, 1)])
def test_log_mel_at_other_dimensions(tmp_path: Path, mel_bins: int, context: int) -> None:
    config = encoder_config(mel_bins, context)
    audio = (np.random.default_rng(1).standard_normal(config.samples) * 0.1).astype(np.float32)
    graph = load(tmp_path, lambda g: build_log_mel(g, config))
    expected = frontend.log_mel(torch.from_numpy(audio), config).numpy()
    assert worst(graph.run({"audio": audio[None]})["log_mel"][0].T, expected) <= 1e-4


def test_log_mel_of_silence_is_finite(tmp_path: Path) -> None:
    config = encoder_config(80, 50)
    graph = load(tmp_path, lambda g: build_log_mel(g, config))
    log_mel = graph.run({"audio": np.zeros((1, config.samples), np.float32)})["log_mel"]
    assert np.allclose(log_mel, (np.log10(1e-10) + 4) / 4)


# -- vocoder -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vocoder(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> OnnxRuntimeGraph:
    return load(
        tmp_path_factory.mktemp("vocoder"),
        lambda g: build_vocoder(g, checkpoint.config.vocoder, checkpoint.modules["vocoder"]),
        inner=("stft_real", "stft_imag"),
    )


def inputs(config: VocoderConfig, mel: np.ndarray, source: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sines = config.harmonics + 1
    return {
        "mel": mel,
        "phase": rng.uniform(-np.pi, np.pi, (1, sines, 1)).astype(np.float32),
        "noise": rng.standard_normal((1, sines, mel.shape[2] * config.hop)).astype(np.float32),
        "source_cache": source,
    }


def test_vocoder_of_golden(
    vocoder: OnnxRuntimeGraph, checkpoint: Checkpoint, decoder_units: dict[str, np.ndarray]
) -> None:
    golden = decoder_units
    outputs = vocoder.run(inputs(checkpoint.config.vocoder, golden["hift_mel"], golden["hift_s"]))
    assert worst(outputs["f0"], golden["hift_f0"]) <= 1e-3
    assert worst(outputs["source"], golden["hift_s"]) == 0
    assert worst(outputs["stft_real"], golden["hift_stft_real"]) <= 1e-3
    assert worst(outputs["stft_imag"], golden["hift_stft_imag"]) <= 1e-3
    assert worst(outputs["wav"], golden["hift_wav"]) <= 1e-4


@pytest.mark.parametrize("call", [0, 1, 2])
def test_vocoder_source_of_golden_draws(
    vocoder: OnnxRuntimeGraph, checkpoint: Checkpoint, shared: Path, call: int
) -> None:
    config = checkpoint.config.vocoder
    with np.load(shared / "goldens" / "stream_C.npz") as arrays:
        golden = {name.partition("_")[2]: arrays[name] for name in arrays if name.startswith(f"c{call}_")}
    driven = inputs(config, golden["hift_mel_in"], golden["source"])
    assert worst(vocoder.run(driven)["wav"], golden["wav_raw"]) <= 1e-4

    cached = golden["source"][:, :, : config.overlap if call else 0]
    drawn = driven | {"phase": golden["phase"], "noise": golden["sine_noise"], "source_cache": cached}
    outputs = vocoder.run(drawn)
    assert worst(outputs["f0"], golden["f0"]) <= 1e-3
    assert worst(outputs["source"], golden["source"]) <= 1e-3
    assert worst(outputs["wav"], golden["wav_raw"]) <= 1e-3

    other = drawn | {"phase": drawn["phase"] + np.eye(config.harmonics + 1, 1, dtype=np.float32)}
    assert worst(vocoder.run(other)["source"], outputs["source"]) == 0  # the fundamental's phase is not used


def other_config(**changes: object) -> VocoderConfig:
    settings: dict[str, object] = {
        "mel": 20,
        "sample_rate": 16_000,
        "base": 32,
        "harmonics": 4,
        "sine_amplitude": 0.15,
        "noise_sigma": 0.01,
        "voiced_threshold": 5.0,
        "upsample_rates": (4, 5, 3),
        "upsample_kernels": (8, 11, 7),
        "fft": 16,
        "fft_hop": 4,
        "resblock_kernels": (3, 9),
        "resblock_dilations": ((1, 3), (1, 2)),
        "source_kernels": (7, 5, 3),
        "source_dilations": ((1, 3), (1, 3), (1, 5)),
        "leaky_slope": 0.2,
        "audio_limit": 0.5,
        "f0_width": 24,
        "f0_layers": 3,
    }
    return VocoderConfig.model_validate(settings | changes)


TWO_STAGES = {
    "base": 24,
    "upsample_rates": (6, 2),
    "upsample_kernels": (12, 4),
    "fft": 24,
    "fft_hop": 6,
    "source_kernels": (3, 7),
    "source_dilations": ((1,), (2, 3)),
}
ONE_STAGE = {
    "upsample_rates": (8,),
    "upsample_kernels": (16,),
    "harmonics": 0,
    "source_kernels": (3,),
    "source_dilations": ((1,),),
}


@pytest.mark.parametrize("changes", [{}, TWO_STAGES, ONE_STAGE], ids=["three stages", "two stages", "one stage"])
@pytest.mark.parametrize(("frames", "cached"), [(1, 0), (11, 7)])
def test_vocoder_at_other_dimensions(tmp_path: Path, changes: dict[str, object], frames: int, cached: int) -> None:
    config = other_config(**changes)
    torch.manual_seed(3)
    module = HiFT(config).eval()
    for name, parameter in module.named_parameters():
        if name.endswith("alpha"):
            torch.nn.init.uniform_(parameter, 0.3, 2.0)
        elif name.startswith("f0_predictor.classifier"):
            torch.nn.init.constant_(parameter, 60.0)  # Hz enough for most frames to be voiced
    graph = load(tmp_path, lambda g: build_vocoder(g, config, StateDict(module)))
    rng = np.random.default_rng(5)
    mel = rng.standard_normal((1, config.mel, frames)).astype(np.float32)
    given = inputs(config, mel, (0.1 * rng.standard_normal((1, 1, cached))).astype(np.float32))
    outputs = graph.run(given)
    mel_, phase, noise, source_cache = (torch.from_numpy(value) for value in given.values())
    with torch.inference_mode():
        wav, source, f0 = module(mel_, SourceDraws(phase, noise), source_cache)
    assert outputs["wav"].shape == (1, frames * config.hop)
    assert worst(outputs["f0"], f0.numpy()) <= 1e-3
    assert worst(outputs["source"], source.numpy()) <= 1e-3
    assert worst(outputs["wav"], wav.numpy()) <= 1e-4


def test_phase_stays_exact_over_a_long_call(tmp_path: Path) -> None:
    config = other_config(sine_amplitude=1.0, noise_sigma=0.0, harmonics=8, sample_rate=24_000)
    module = HiFT(config)
    with torch.no_grad():
        module.m_source.l_linear.weight.copy_(torch.eye(1, 9).roll(8))  # the highest overtone alone
        module.m_source.l_linear.bias.zero_()

    def build(g: GraphBuilder) -> None:
        f0 = g.input("f0", FLOAT, [1, "F"])
        phase, noise = g.input("phase", FLOAT, [1, 9, 1]), g.input("noise", FLOAT, [1, 9, "L"])
        g.output(harmonic_source(g, config, StateDict(module), f0, phase, noise), "source", FLOAT, [1, 1, "L"])

    f0 = np.random.default_rng(0).uniform(100, 400, (1, 3000)).astype(np.float32)  # 30 s at a hop of 240
    samples = f0.shape[1] * config.hop
    zeros = {"phase": np.zeros((1, 9, 1), np.float32), "noise": np.zeros((1, 9, samples), np.float32)}
    source = load(tmp_path, build).run({"f0": f0, **zeros})["source"]
    step = (f0 * np.float32(9) / np.float32(config.sample_rate)).astype(np.float64)
    cycles = np.repeat(step, config.hop, axis=1).cumsum(axis=1)
    assert worst(source[0], np.tanh(np.sin(2 * np.pi * (cycles % 1)))) < 1e-4


@pytest.mark.parametrize(("fft", "hop"), [(16, 4), (24, 6), (20, 4)])
def test_overlap_add_is_torch_istft(tmp_path: Path, fft: int, hop: int) -> None:
    config = other_config(fft=fft, fft_hop=hop)
    bins = fft // 2 + 1

    def build(g: GraphBuilder) -> None:
        parts = [g.input(name, FLOAT, [1, bins, "n"]) for name in ("real", "imaginary")]
        g.output(overlap_add(g, config, *parts), "wav", FLOAT, [1, 1, "L"])

    rng = np.random.default_rng(2)
    real, imaginary = (rng.standard_normal((1, bins, 9)).astype(np.float32) for _ in range(2))
    expected = torch.istft(
        torch.complex(*map(torch.from_numpy, (real, imaginary))), fft, hop, window=torch.hann_window(fft)
    )
    actual = load(tmp_path, build).run({"real": real, "imaginary": imaginary})["wav"]
    assert worst(actual[0], expected.numpy()) <= 1e-5
