"""Starts on the device: plans are read, kernels compiled and kept, and no answer changes once they are."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from omni2_engine.backends.tensorrt.backend import TensorRTBackend

from .rig import Rig
from .test_pipeline import answer


def test_the_machine(rig: Rig) -> None:
    """Driver, CUDA and what runs engines, for the report."""
    device = rig.open_device()
    print(f"{rig.name}: {device.name}, SM {device.capability}, driver's CUDA {device.driver_version}, ")
    print(f"runtime {device.runtime_version}, memory (free, total) {device.memory()}")
    assert device.capability >= (7, 5)


def test_plans_are_read_and_their_kernels_compiled_once(rig: Rig) -> None:
    """A second start finds the kernels that the first has kept."""
    backend = rig.make_backend(True)
    if not isinstance(backend, TensorRTBackend):
        pytest.skip("ONNX Runtime's CUDA provider has no plans")
    for stage in ("encoder", "llm", "flow_step"):
        began = time.perf_counter()
        plan = backend.open(rig.directory, stage).plan
        took = time.perf_counter() - began
        print(f"{stage}: read in {took:.2f} s, working memory {plan.working_bytes / 1e6:.0f} MB")
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        rig.load(warm_up=True).close()
        seconds.append(time.perf_counter() - began)
    print(f"a start takes {seconds[0]:.1f} s, with its kernels kept {seconds[1]:.1f} s")
    assert len(seconds) == 2


def test_one_seed_has_one_answer_however_long_it_runs(rig: Rig, utterance: Callable[..., np.ndarray]) -> None:
    """No kernel is exchanged for another beside the calls: the same bits at once, and again later."""
    engine = rig.load(warm_up=True)
    first = answer(engine, utterance(3))
    for pause in (0.0, 0.0, 0.1):
        time.sleep(pause)
        again = answer(engine, utterance(3))
        assert again[0] == first[0]
        np.testing.assert_array_equal(again[1], first[1])
