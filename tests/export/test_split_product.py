"""Float32 arithmetic that stands for float64 where there is none: split products, log-mel, F0 and phase."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.backends.onnxruntime.graph import OnnxRuntimeGraph
from omni2_engine.model.config import EncoderConfig, VocoderConfig
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.graphs.builder import FLOAT, GraphBuilder, Numerics
from omni2_export.graphs.log_mel import build_log_mel
from omni2_export.graphs.split_product import split_product
from omni2_export.graphs.vocoder import build_vocoder
from omni2_export.graphs.vocoder_source import harmonic_source
from omni2_export.graphs.weights import WeightWriter

SINGLE = Numerics(doubles=False)


def load(folder: Path, build: Callable[[GraphBuilder], None], numerics: Numerics = SINGLE) -> OnnxRuntimeGraph:
    path = folder / f"{'double' if numerics.doubles else 'single'}.onnx"
    with WeightWriter(path.with_suffix(".weights")) as writer:
        graph = GraphBuilder("graph", writer, numerics)
        build(graph)
        graph.save(path)
    return OnnxRuntimeBackend(threads=1).load(path)


def worst(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max())


@pytest.mark.parametrize("inputs", [200, 1536])
@pytest.mark.parametrize("size", [1.0, 1e-4, 3e5])
def test_results_smaller_than_their_terms(tmp_path: Path, inputs: int, size: float) -> None:
    """Sums that cancel to a ten-thousandth of their terms: a plain product loses digits that a split one keeps."""
    random = np.random.default_rng(inputs)
    weight = random.standard_normal((inputs, 33))
    x, basis = random.standard_normal((50, inputs)), np.linalg.qr(weight)[0]
    x = (size * (x - (1 - 1e-4) * x @ basis @ basis.T)).astype(np.float32)
    exact = x.astype(np.float64) @ weight

    def build(g: GraphBuilder) -> None:
        given = g.input("x", FLOAT, ["n", inputs])
        g.output(split_product(g, given, weight, "w"), "split", FLOAT, ["n", 33])
        g.output(g.op("MatMul", given, g.weight("plain", weight)), "product", FLOAT, ["n", 33])

    outputs = load(tmp_path, build).run({"x": x})
    assert worst(outputs["split"], exact) < worst(outputs["product"], exact) / 30


def test_nothing_but_zeros(tmp_path: Path) -> None:
    weight = np.ones((4, 2))

    def build(g: GraphBuilder) -> None:
        g.output(split_product(g, g.input("x", FLOAT, [3, 4]), weight, "w"), "y", FLOAT, [3, 2])

    assert (load(tmp_path, build).run({"x": np.zeros((3, 4), np.float32)})["y"] == 0).all()


def test_rows_do_not_know_of_each_other(tmp_path: Path) -> None:
    """A loud one beside a quiet one changes nothing in it."""
    random = np.random.default_rng(3)
    weight, x = random.standard_normal((40, 9)), random.standard_normal((2, 6, 40)).astype(np.float32)
    x[1] *= 1e4

    def build(g: GraphBuilder) -> None:
        g.output(split_product(g, g.input("x", FLOAT, ["B", "n", 40]), weight, "w"), "y", FLOAT, ["B", "n", 9])

    graph = load(tmp_path, build)
    both = graph.run({"x": x})["y"]
    for row in range(2):
        assert np.array_equal(both[row], graph.run({"x": x[row, None]})["y"][0])


# -- log-mel -----------------------------------------------------------------------------------------------------------


def encoder_config(mel_bins: int, context: int) -> EncoderConfig:
    return EncoderConfig(
        mel_bins=mel_bins, context=context, width=8, heads=1, layers=1, ffn=8, stack=5, projector_hidden=8, output=8
    )


def log_mel(folder: Path, config: EncoderConfig, audio: np.ndarray, numerics: Numerics) -> np.ndarray:
    window = np.zeros((1, config.samples), np.float32)
    window[0, : len(audio)] = audio
    return load(folder, lambda g: build_log_mel(g, config), numerics).run({"audio": window})["log_mel"]


@pytest.mark.parametrize("name", ["llm_1", "llm_4"])
def test_log_mel_of_goldens(shared: Path, tmp_path: Path, name: str) -> None:
    with np.load(shared / "goldens" / f"{name}.npz") as arrays:
        speech, expected = arrays["audio16k_i16"] / np.float32(32768), arrays["log_mel"]
    found = log_mel(tmp_path, encoder_config(128, 1500), speech.astype(np.float32), SINGLE)
    assert worst(found[0].T, expected) <= 1e-4


@pytest.mark.parametrize("loudness", [1.0, 0.1])
def test_log_mel_eight_decades_below_the_loudest(tmp_path: Path, loudness: float) -> None:
    """A loud tone that fades to a thousandth in every frame beside noise at −75 dB: quiet bins beside loud ones."""
    config, random = encoder_config(80, 100), np.random.default_rng(4)
    time = np.arange(config.samples) / 16_000
    tone = np.sin(2 * np.pi * 437.3 * time) + 0.3 * np.sin(2 * np.pi * 3011.7 * time)
    audio = (loudness * (0.7 * tone + 1e-4 * random.standard_normal(config.samples))).astype(np.float32)
    exact = log_mel(tmp_path, config, audio, Numerics())
    assert exact.max() - exact.min() == pytest.approx(2, abs=0.01)  # eight decades, by fours
    assert worst(log_mel(tmp_path, config, audio, SINGLE), exact) <= 2e-5


# -- source ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(shared: Path) -> Checkpoint:
    tiny = shared / "checkpoints" / "tiny"
    return open_checkpoint(
        tiny / "omni2_tiny", decoder=tiny / "cosy2_decoder", speech_encoder=tiny / "speech_encoder" / "large-v3.pt"
    )


def test_vocoder_of_golden(checkpoint: Checkpoint, shared: Path, tmp_path: Path) -> None:
    config = checkpoint.config.vocoder
    graph = load(tmp_path, lambda g: build_vocoder(g, config, checkpoint.modules["vocoder"]))
    with np.load(shared / "goldens" / "stream_C.npz") as arrays:
        golden = {name.partition("_")[2]: arrays[name] for name in arrays if name.startswith("c1_")}
    outputs = graph.run(
        {
            "mel": golden["hift_mel_in"],
            "phase": golden["phase"],
            "noise": golden["sine_noise"],
            "source_cache": golden["source"][:, :, : config.overlap],
        }
    )
    assert worst(outputs["f0"], golden["f0"]) <= 1e-3
    assert worst(outputs["source"], golden["source"]) <= 1e-3
    assert worst(outputs["wav"], golden["wav_raw"]) <= 1e-3


class Mix:
    """The source's mixing layer with given weights."""

    def __init__(self, weight: np.ndarray) -> None:
        self._arrays = {"m_source.l_linear.weight": weight, "m_source.l_linear.bias": np.zeros(1, np.float32)}

    def read(self, name: str) -> np.ndarray:
        return self._arrays[name]


@pytest.mark.parametrize(("hop", "rate"), [(480, 24_000), (60, 16_000), (882, 44_100)])
def test_phase_stays_exact_over_a_long_call(tmp_path: Path, hop: int, rate: int) -> None:
    rates = {480: (8, 5, 3), 60: (5, 3), 882: (21, 21)}[hop]
    config = VocoderConfig(
        mel=20, sample_rate=rate, base=32, harmonics=8, sine_amplitude=1.0, noise_sigma=0.0, voiced_threshold=5.0,
        upsample_rates=rates, upsample_kernels=tuple(2 * r for r in rates), fft=16, fft_hop=hop // int(np.prod(rates)),
        resblock_kernels=(3,), resblock_dilations=((1,),), source_kernels=(3,) * len(rates),
        source_dilations=((1,),) * len(rates), leaky_slope=0.1, audio_limit=1.0, f0_width=8, f0_layers=1,
    )  # fmt: skip
    assert config.hop == hop

    def build(g: GraphBuilder) -> None:
        f0 = g.input("f0", FLOAT, [1, "F"])
        phase, noise = g.input("phase", FLOAT, [1, 9, 1]), g.input("noise", FLOAT, [1, 9, "L"])
        mix = Mix(np.eye(1, 9, 8, dtype=np.float32))  # the highest overtone alone
        g.output(harmonic_source(g, config, mix, f0, phase, noise), "source", FLOAT, [1, 1, "L"])  # type: ignore[arg-type]

    f0 = np.random.default_rng(0).uniform(100, 900, (1, 1500)).astype(np.float32)
    samples = f0.shape[1] * hop
    zeros = {"phase": np.zeros((1, 9, 1), np.float32), "noise": np.zeros((1, 9, samples), np.float32)}
    source = load(tmp_path, build).run({"f0": f0, **zeros})["source"]
    step = (f0 * np.float32(9) / np.float32(rate)).astype(np.float64)
    cycles = np.repeat(step, hop, axis=1).cumsum(axis=1)
    assert worst(source[0], np.tanh(np.sin(2 * np.pi * (cycles % 1)))) < 2e-4
