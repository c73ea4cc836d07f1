"""Vocoder and frontend stages: golden streams, bookkeeping on any schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni2_engine import Engine
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.backends.onnxruntime.graph import OnnxRuntimeGraph
from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES, EncoderConfig, VocoderConfig
from omni2_engine.stages.frontend import Frontend
from omni2_engine.stages.vocoder import Vocoder
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.graphs.builder import GraphBuilder
from omni2_export.graphs.vocoder import build_vocoder
from omni2_export.graphs.weights import WeightWriter
from omni2_kernels.audio import cross_fade, pack_pcm16

from ..waiting import Moments

Arrays = dict[str, np.ndarray]


def load(folder: Path, build: Callable[[GraphBuilder], None]) -> OnnxRuntimeGraph:
    with WeightWriter(folder / "graph.weights") as writer:
        graph = GraphBuilder("graph", writer)
        build(graph)
        graph.save(folder / "graph.onnx")
    return OnnxRuntimeBackend(threads=1).load(folder / "graph.onnx")


@pytest.fixture(scope="module")
def checkpoint(shared: Path) -> Checkpoint:
    tiny = shared / "checkpoints" / "tiny"
    return open_checkpoint(
        tiny / "omni2_tiny", decoder=tiny / "cosy2_decoder", speech_encoder=tiny / "speech_encoder" / "large-v3.pt"
    )


@pytest.fixture(scope="module")
def vocoder(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Vocoder:
    config, tensors = checkpoint.config.vocoder, checkpoint.modules["vocoder"]
    return Vocoder(load(tmp_path_factory.mktemp("vocoder"), lambda g: build_vocoder(g, config, tensors)), config)


# -- streaming as upstream does ----------------------------------------------------------------------------------------


def golden_calls(shared: Path, name: str) -> list[Arrays]:
    """The calls of one streamed turn, in order."""
    with np.load(shared / "goldens" / f"{name}.npz") as arrays:
        return [
            {key.removeprefix(f"c{call}_"): arrays[key] for key in arrays if key.startswith(f"c{call}_")}
            for call in range(len(arrays["schedule"]))
        ]


def new_frames(vocoder: Vocoder, calls: list[Arrays]) -> Iterator[np.ndarray]:
    """What each golden call adds to the frames before it, (frames, mel)."""
    for index, call in enumerate(calls):
        yield call["hift_mel_in"][0].T[VOCODER_OVERLAP_FRAMES if index else 0 :]


def test_stream_with_golden_draws(vocoder: Vocoder, shared: Path) -> None:
    calls = golden_calls(shared, "stream_C")
    state = vocoder.new_state()
    for index, (call, mel) in enumerate(zip(calls, new_frames(vocoder, calls), strict=True)):

        def draws(samples: int, call: Arrays = call) -> tuple[np.ndarray, np.ndarray]:
            return call["phase"][0, :, 0], call["sine_noise"][0, :, :samples]

        pcm = vocoder.step(state, mel, draws, final=index + 1 == len(calls))
        assert pcm.shape == call["wav"][0].shape
        assert np.abs(pcm - call["wav"][0]).max() <= 1e-3


def test_stream_with_golden_sources(vocoder: Vocoder, shared: Path) -> None:
    calls = golden_calls(shared, "stream_A")
    state = vocoder.new_state()
    spoken = []
    for index, (call, mel) in enumerate(zip(calls, new_frames(vocoder, calls), strict=True)):
        if "source" in call:
            state.source = call["source"][0, 0]
        spoken.append(vocoder.step(state, mel, silent_draws(vocoder.config), final=index + 1 == len(calls)))
        if "source" in call:
            assert np.abs(spoken[-1] - call["wav"][0]).max() <= 1e-4
    with np.load(shared / "goldens" / "stream_A.npz") as arrays:
        assert np.concatenate(spoken).shape == arrays["wav"][0].shape


def silent_draws(config: VocoderConfig) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    sines = config.harmonics + 1
    return lambda samples: (np.zeros(sines, np.float32), np.zeros((sines, samples), np.float32))


# -- bookkeeping -------------------------------------------------------------------------------------------------------


class RecordingGraph:
    """Stands in for the vocoder graph: the waveform of a frame is its own value, and every call's inputs are kept."""

    inputs: Mapping[str, tuple[int | str | None, ...]] = {}
    outputs: Mapping[str, tuple[int | str | None, ...]] = {}

    def __init__(self, hop: int) -> None:
        self.hop = hop
        self.calls: list[Mapping[str, np.ndarray]] = []

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        self.calls.append(inputs)
        wav = np.repeat(inputs["mel"][:, 0], self.hop, axis=1)
        source = wav[None].copy()
        cached = inputs["source_cache"].shape[2]
        source[:, :, :cached] = inputs["source_cache"]
        return {"wav": wav, "source": source, "f0": inputs["mel"][:, 0]}


CONFIG = VocoderConfig(
    mel=3,
    sample_rate=24_000,
    base=8,
    harmonics=2,
    sine_amplitude=0.1,
    noise_sigma=0.003,
    voiced_threshold=10,
    upsample_rates=(2,),
    upsample_kernels=(4,),
    fft=8,
    fft_hop=2,
    resblock_kernels=(3,),
    resblock_dilations=((1,),),
    source_kernels=(3,),
    source_dilations=((1,),),
    leaky_slope=0.1,
    audio_limit=0.99,
    f0_width=4,
    f0_layers=1,
)


@given(st.integers(8, 30), st.lists(st.integers(0, 30), max_size=5))
def test_any_schedule_gives_every_frame_once(first: int, later: list[int]) -> None:
    graph = RecordingGraph(CONFIG.hop)
    vocoder = Vocoder(graph, CONFIG)
    state = vocoder.new_state()
    schedule = [first, *later]
    mel = np.repeat(np.arange(1, sum(schedule) + 1, dtype=np.float32)[:, None], CONFIG.mel, axis=1)
    spoken, given_out = [], 0
    for index, frames in enumerate(schedule):
        final = index + 1 == len(schedule)
        spoken.append(vocoder.step(state, mel[given_out : given_out + frames], silent_draws(CONFIG), final))
        given_out += frames
        cached = VOCODER_OVERLAP_FRAMES if index else 0
        held_back = 0 if final else VOCODER_OVERLAP_FRAMES
        assert len(spoken[-1]) == CONFIG.hop * (frames + cached - held_back)
        assert np.array_equal(graph.calls[-1]["mel"][0].T, mel[given_out - frames - cached : given_out])
        if index:  # the source goes on where the last call's overlap begins
            assert graph.calls[-1]["source_cache"].shape == (1, 1, CONFIG.overlap)
            assert graph.calls[-1]["source_cache"][0, 0, 0] == mel[given_out - frames - cached, 0]
    pcm = np.concatenate(spoken)
    assert len(pcm) == CONFIG.hop * sum(schedule)
    # Both sides of a fade carry one value here: it comes out times the window's two halves, each time it is faded.
    fades = sum(frames < VOCODER_OVERLAP_FRAMES for frames in later) + 1 if later else 0
    ratio = pcm / np.repeat(mel[:, 0], CONFIG.hop)
    assert ratio.min() >= 0.99
    assert ratio.max() <= 1.09**fades


def test_first_call_with_too_few_frames() -> None:
    vocoder = Vocoder(RecordingGraph(CONFIG.hop), CONFIG)
    few = np.zeros((VOCODER_OVERLAP_FRAMES - 1, CONFIG.mel), np.float32)
    with pytest.raises(ValueError, match="needs 8 frames"):
        vocoder.step(vocoder.new_state(), few, silent_draws(CONFIG), final=False)
    assert len(vocoder.step(vocoder.new_state(), few, silent_draws(CONFIG), final=True)) == len(few) * CONFIG.hop
    assert len(vocoder.step(vocoder.new_state(), few[:0], silent_draws(CONFIG), final=True)) == 0


def test_cross_fade_is_hammings() -> None:
    window = np.hamming(6)
    head, tail = np.array([1, 2, 3], np.float32), np.array([-1, 0, 5], np.float32)
    expected = (head * window[:3] + tail * window[3:]).astype(np.float32)
    assert np.array_equal(cross_fade(head, tail), expected)
    assert cross_fade(head, tail, out=head) is head
    assert np.array_equal(head, expected)


def test_packing_saturates() -> None:
    pcm = np.array([0, 1, -1, 1.069, -7, np.inf, -np.inf, np.nan, 0.5 / 32767 + 1e-6], np.float32)
    assert pack_pcm16(pcm).tolist() == [0, 32767, -32767, 32767, -32767, 32767, -32767, 0, 1]
    assert pack_pcm16(pcm).dtype == np.int16


# -- frontend ----------------------------------------------------------------------------------------------------------


class EchoGraph(RecordingGraph):
    """Gives the window back as if it were its spectrogram."""

    def __init__(self) -> None:
        super().__init__(hop=1)

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {"log_mel": inputs["audio"]}


@pytest.mark.parametrize("samples", [0, 1, 640, 1000])
def test_frontend_pads_or_cuts(samples: int) -> None:
    config = EncoderConfig(
        mel_bins=4, context=2, width=8, heads=1, layers=1, ffn=8, stack=1, projector_hidden=8, output=8
    )
    audio = np.arange(1, samples + 1, dtype=np.float32)
    window = Frontend(EchoGraph(), config)(audio)
    kept = min(samples, config.samples)
    assert window.shape == (1, config.samples)
    assert np.array_equal(window[0, :kept], audio[:kept])
    assert not window[0, kept:].any()


def test_the_cpu_is_not_warmed_up_in_shapes(tiny_engine_dir: Path) -> None:
    moments = Moments()
    with Engine.load(tiny_engine_dir, backend=moments.backend(), warm_up=False) as engine:
        engine.pipeline.decoder.warm_up()
    assert not moments.runs["vocoder"]
