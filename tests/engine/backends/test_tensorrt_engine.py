"""Whole conversations through the TensorRT backend on stand-ins: the same answers as on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine import Engine
from omni2_engine._core import CudaDevice
from omni2_engine.backends.tensorrt import TensorRTBackend
from omni2_engine.backends.tensorrt_library import MAINLINE, TensorRt
from omni2_export.checkpoint import open_checkpoint
from omni2_export.tensorrt.shapes import Sizes

from ..stand_ins.plans import add_plans, copy_engine
from ..stand_ins.tensorrt import VERSION

LIMITS = {"max_new_tokens": 9, "max_last_write": 24}
SIZES = Sizes(sessions=3, context=512, new_tokens=40, last_write=60, left_context=6.0)


@pytest.fixture(scope="module")
def planned(tiny_engine_dir: Path, tiny_checkpoint: CheckpointPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny engine with plans of the stand-in TensorRT for sm89."""
    folder = tmp_path_factory.mktemp("plans")
    graphs = folder / "graphs"
    graphs.mkdir()
    engine = copy_engine(tiny_engine_dir, folder / "engine")
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    add_plans(engine, checkpoint, TensorRt(None, MAINLINE, VERSION, None), "sm89", SIZES, graphs)
    return engine


@pytest.fixture
def load(planned: Path, fake_cuda: Any, library: TensorRt) -> Callable[..., Engine]:
    def loaded(**settings: Any) -> Engine:
        backend = TensorRTBackend(CudaDevice(fake_cuda.path), library, settings.pop("cuda_graphs", True))
        given = {"max_context": 400, "left_context": 6.0, "warm_up": False} | settings
        return Engine.load(planned, backend=backend, **given)

    return loaded


def answer(engine: Engine, sound: np.ndarray, **options: Any) -> tuple[str, np.ndarray]:
    chunks = list(engine.stream(sound, sample_rate=16_000, seed=3, **LIMITS, **options))
    return "".join(chunk.text for chunk in chunks), np.concatenate([chunk.pcm for chunk in chunks])


def test_a_turn_is_answered_as_on_the_cpu(
    load: Callable[..., Engine], tiny_engine: Engine, utterance: Callable[..., np.ndarray]
) -> None:
    text, sound = answer(load(), utterance(1))
    expected, reference = answer(tiny_engine, utterance(1))
    assert text == expected and text
    assert sound.shape == reference.shape
    np.testing.assert_allclose(sound, reference, atol=1e-3)
