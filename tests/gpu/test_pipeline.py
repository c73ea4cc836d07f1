"""Whole answers on the device: those of the CPU, those of the original, alone and among eight, recorded and not."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_engine import Engine
from omni2_engine.backends.tensorrt.backend import TensorRTBackend
from omni2_engine.sampling import Stream
from omni2_export.checkpoint import Checkpoint
from omni2_export.verify import verify_engine
from omni2_export.verify.rows import snr

from .rig import SESSIONS, Rig, threads

LIMITS = {"max_new_tokens": 12, "max_last_write": 30}
LIKE_THE_CPU = 40.0  # dB of a whole answer: the same ids, through sums in another order and phases without float64
LIKE_ITSELF = 60.0  # dB between two answers of one device, whose kernels may differ with the number of rows

Answer = tuple[str, np.ndarray]


def answer(engine: Engine, sound: np.ndarray, **options: Any) -> Answer:
    chunks = list(engine.stream(sound, sample_rate=16_000, seed=3, **LIMITS, **options))
    return "".join(chunk.text for chunk in chunks), np.concatenate([chunk.pcm for chunk in chunks])


def assert_alike(found: Answer, expected: Answer, least: float) -> None:
    assert found[0] == expected[0] and expected[0]
    assert found[1].shape == expected[1].shape
    kept = snr(found[1].astype(np.float64), expected[1].astype(np.float64))
    print(f"{kept:.0f} dB, at least {least:.0f}")
    assert kept >= least


def test_an_answer_is_the_cpus(rig: Rig, utterance: Callable[..., np.ndarray]) -> None:
    assert_alike(answer(rig.load(), utterance(1)), answer(rig.load_on_cpu(), utterance(1)), LIKE_THE_CPU)


def test_recorded_steps_answer_as_others(rig: Rig, utterance: Callable[..., np.ndarray]) -> None:
    if not isinstance(rig.make_backend(True), TensorRTBackend):
        pytest.skip("ONNX Runtime's CUDA provider records nothing")
    recorded, plain = rig.load(cuda_graphs=True, warm_up=True), rig.load(cuda_graphs=False)
    for _ in range(2):  # what is recorded in the first is launched in the second
        assert_alike(answer(recorded, utterance(2)), answer(plain, utterance(2)), LIKE_ITSELF)


def test_eight_sessions_are_answered_as_one(rig: Rig, utterance: Callable[..., np.ndarray]) -> None:
    engine = rig.load(sessions=SESSIONS)
    alone = [answer(engine, utterance(seed)) for seed in range(SESSIONS)]
    with ThreadPoolExecutor(SESSIONS) as pool:
        together = [*pool.map(lambda seed: answer(engine, utterance(seed)), range(SESSIONS))]
    for found, expected in zip(together, alone, strict=True):
        assert_alike(found, expected, LIKE_ITSELF)


def test_forced_ids_are_gone_on_with(rig: Rig, utterance: Callable[..., np.ndarray]) -> None:
    engine = rig.load()
    text = list(range(20, 29))
    with engine.session(**LIMITS) as session:
        forced = {Stream.TEXT: text}
        chunks = list(session.stream(utterance(1), sample_rate=16_000, forced=forced, max_new_tokens=len(text)))
        assert session.metrics is not None and session.metrics.text_tokens == len(text)
    assert "".join(chunk.text for chunk in chunks) == engine.pipeline.tokenizer.decode(text)


def test_goldens_of_the_original(
    rigs: Callable[[Checkpoint, str], Rig], given_checkpoint: Checkpoint, shared: Path, on_device: None
) -> None:
    """Every row of `verify`; those of values inside a graph are the CPU's."""
    report = verify_engine(rigs(given_checkpoint, "exact").load(), shared / "goldens", threads())
    print(f"{len(report.judged)} arrays of the original compared, {len(report.misses)} missed")
    assert report.passed, report.misses
