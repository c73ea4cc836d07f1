"""The encoder over speech and a margin as a plan: some lengths, each one recorded call, and the CPU's answers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine import Engine
from omni2_engine._core import CudaDevice
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.backends.tensorrt.backend import TensorRTBackend
from omni2_engine.backends.tensorrt.library import MAINLINE, TensorRt
from omni2_engine.errors import BackendError, SettingError
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.stages.encoder import SpeechEncoder
from omni2_engine.stages.encoder_tail import DEVICE_SPEECH, MARGIN, EncoderTail, TailedEncoder
from omni2_export.build import PRESETS, BuildRequest, build_engine
from omni2_export.checkpoint import open_checkpoint
from omni2_export.tensorrt.shapes import Sizes

from ...stand_ins.plans import add_plans, copy_engine
from ...stand_ins.tensorrt import VERSION

SIZES = Sizes(sessions=1, context=512, new_tokens=40, last_write=60, left_context=6.0)
CPU = OnnxRuntimeBackend(1)
NO_PROBES = np.array([], np.int64)


@pytest.fixture(scope="module")
def planned(
    tiny_checkpoint: CheckpointPaths, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> EngineDirectory:
    """An engine with tails, for the CPU and for the stand-in TensorRT."""
    folder = tmp_path_factory.mktemp("tails")
    (folder / "graphs").mkdir()
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    voices = [repository / "examples" / "voice.wav"]
    build_engine(BuildRequest(checkpoint, folder / "engine", voices, PRESETS["exact"].loaded_with("tail")))
    library = TensorRt(None, MAINLINE, VERSION, None)
    add_plans(folder / "engine", checkpoint, library, "sm89", SIZES, folder / "graphs", encoder="tail")
    return EngineDirectory(folder / "engine")


@pytest.fixture
def backend(fake_cuda: Any, library: TensorRt) -> TensorRTBackend:
    return TensorRTBackend(CudaDevice(fake_cuda.path), library)


@pytest.fixture
def encoder(planned: EngineDirectory, backend: TensorRTBackend) -> TailedEncoder:
    return tailed(planned, backend)


def tailed(planned: EngineDirectory, backend: Any) -> TailedEncoder:
    tails = EncoderTail.load(planned.path / "tables")
    return TailedEncoder(backend.open(planned, "encoder_tail"), planned.manifest.model.encoder, tails, NO_PROBES)


def said(planned: EngineDirectory, positions: int) -> np.ndarray:
    """Log-mel of noise for that many positions, and of silence."""
    c = planned.manifest.model.encoder
    log_mel = np.full((1, c.mel_bins, c.frames), -0.7, np.float32)
    heard = min(2 * positions, c.frames)
    log_mel[:, :, :heard] = np.random.default_rng(positions).uniform(-0.5, 1, (1, c.mel_bins, heard))
    return log_mel


@pytest.mark.parametrize("positions", DEVICE_SPEECH)
def test_a_plan_answers_as_the_cpus_graph(planned: EngineDirectory, encoder: TailedEncoder, positions: int) -> None:
    """Where the CPU computes as many positions, recorded or not."""
    log_mel = said(planned, positions)
    expected = tailed(planned, CPU)(log_mel)
    for _ in range(3):
        np.testing.assert_allclose(encoder(log_mel), expected, atol=1e-4)


@pytest.mark.parametrize("positions", [0, 3, 149, 151, 260, 401, 449])
def test_what_lies_between_is_computed_to_the_next_length(
    planned: EngineDirectory, encoder: TailedEncoder, positions: int
) -> None:
    """The same as of a question that is a little longer, with the silence behind it for speech."""
    c, log_mel = planned.manifest.model.encoder, said(planned, positions)
    lengths = [*(n + MARGIN for n in DEVICE_SPEECH if n + MARGIN < c.context), c.context]
    computed = next(n for n in lengths if n >= positions + MARGIN)
    longer = log_mel.copy()
    longer[:, :, 2 * positions : 2 * (computed - MARGIN)] += np.float32(1e-6)
    expected = window(planned, log_mel) if computed == c.context else tailed(planned, CPU)(longer)
    np.testing.assert_allclose(encoder(log_mel), expected, atol=1e-3)


def window(planned: EngineDirectory, log_mel: np.ndarray) -> np.ndarray:
    return SpeechEncoder(CPU.open(planned, "encoder"))(log_mel)


def test_every_length_is_one_launch_and_its_tail_is_on_the_device(
    planned: EngineDirectory, encoder: TailedEncoder, fake_cuda: Any
) -> None:
    """Recorded by the warm-up: a call copies the log-mel there and the vectors back."""
    encoder.warm_up()
    graphs, c = fake_cuda.live()["graphs"], planned.manifest.model.encoder
    assert graphs == 1 + sum(n + MARGIN < c.context for n in DEVICE_SPEECH)
    for positions in (20, 200, 300, 480):
        fake_cuda.log_begin()
        encoder(said(planned, positions))
        log = [line.split(" ", 1)[1] for line in fake_cuda.log()]
        copies = [line for line in log if "copy" in line]
        assert [line for line in log if "copy" not in line] == ["graph", "host function"]
        assert [line.rpartition(" ")[0] for line in copies] == ["copy host to device", "copy device to host"]
    assert fake_cuda.live()["graphs"] == graphs


def test_tails_on_the_device_are_counted(planned: EngineDirectory, encoder: TailedEncoder) -> None:
    c = planned.manifest.model.encoder
    read = [c.context - n - MARGIN for n in DEVICE_SPEECH if n + MARGIN < c.context] + [1]
    assert encoder.held == sum(read) * 2 * c.layers * c.width * np.dtype(np.float16).itemsize
    assert tailed(planned, CPU).held == 0


def test_a_turn_with_tails_is_answered_as_on_the_cpu(
    planned: EngineDirectory,
    emulated: Any,
    library: TensorRt,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of nearly three seconds, where both compute the same positions; without the plan of the whole window, and without
    probes on the CPU."""
    monkeypatch.setattr("omni2_engine.stages.pipeline.load_probes", lambda tables: NO_PROBES)
    answers, sound = [], np.random.default_rng(0).uniform(-0.3, 0.3, 47_200).astype(np.float32)
    for backend in (TensorRTBackend(CudaDevice(emulated.path), library), OnnxRuntimeBackend(1)):
        with (
            caplog.at_level(logging.INFO),
            Engine.load(planned.path, backend=backend, max_context=400, left_context=6.0, warm_up=False) as engine,
        ):
            assert isinstance(engine.pipeline.encoder, TailedEncoder)
            answers.append([*engine.stream(sound, sample_rate=16_000, seed=3, max_new_tokens=6, max_last_write=12)])
            if plan := engine.memory_plan:
                assert plan.parts["tails"] == engine.pipeline.encoder.held > 0
    ours, theirs = answers
    assert "".join(chunk.text for chunk in ours) == "".join(chunk.text for chunk in theirs) != ""
    sounds = (np.concatenate([chunk.pcm for chunk in answer]) for answer in answers)
    np.testing.assert_allclose(*sounds, atol=1e-3)
    assert not any("loaded encoder (" in record.getMessage() for record in caplog.records)


def test_plans_without_tails_say_so(
    tiny_engine_dir: Path,
    tiny_checkpoint: CheckpointPaths,
    tmp_path: Path,
    backend: TensorRTBackend,
) -> None:
    engine = copy_engine(tiny_engine_dir, tmp_path / "engine")
    (tmp_path / "graphs").mkdir()
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    add_plans(engine, checkpoint, TensorRt(None, MAINLINE, VERSION, None), "sm89", SIZES, tmp_path / "graphs")
    with pytest.raises(SettingError, match="without tails"):
        Engine.load(engine, backend=backend, encoder="tail", max_context=400, warm_up=False)


def test_a_device_that_fails_is_told(planned: EngineDirectory, encoder: TailedEncoder, fake_tensorrt: Any) -> None:
    fake_tensorrt.fail_next = "out of luck"
    with pytest.raises(BackendError, match="encoder_tail: out of luck"):
        encoder(said(planned, 100))
