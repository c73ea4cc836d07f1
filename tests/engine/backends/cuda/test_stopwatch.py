"""Pieces of work timed by the device's clock: what counts, in which order, and that it is off unless asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from omni2_engine._core import CudaDevice
from omni2_engine.backends.cuda.stopwatch import Stopwatch
from omni2_engine.backends.cuda.stream import StageStream
from omni2_engine.errors import BackendError

SLOW = 0.02  # seconds that a piece takes by the stand-in's clock


@pytest.fixture
def device(fake_cuda: Any) -> CudaDevice:
    return CudaDevice(fake_cuda.path)


@pytest.fixture
def work(fake_cuda: Any) -> Callable[[StageStream], None]:
    """Something that keeps a stage_stream's stream busy for `SLOW`."""
    return lambda stage_stream: fake_cuda.delay(stage_stream.cuda.handle, round(SLOW * 1e6))


def test_a_piece_takes_what_the_device_takes(device: CudaDevice, work: Callable[[StageStream], None]) -> None:
    stopwatch = Stopwatch(device)
    stage_stream, other = StageStream(device, stopwatch=stopwatch), StageStream(device, stopwatch=stopwatch)
    work(stage_stream)  # before: not counted
    with stage_stream.timed("slow"):
        work(stage_stream)
    with other.timed("nothing"):
        pass
    slow, nothing = stopwatch.take()
    assert (slow.what, nothing.what) == ("slow", "nothing")
    assert (slow.seconds, nothing.seconds) == (pytest.approx(SLOW), 0.0)
    assert stopwatch.take() == []


def test_a_lane_is_not_timed_unless_asked(device: CudaDevice, fake_cuda: Any) -> None:
    stage_stream = StageStream(device)
    before = fake_cuda.live()["events"]
    with stage_stream.timed("a call"):
        stage_stream.cuda.upload(stage_stream.scratch(64).address, np.zeros(8, np.uint8))
    stage_stream.cuda.synchronize()
    assert fake_cuda.live()["events"] == before


def test_events_are_given_back(device: CudaDevice, fake_cuda: Any) -> None:
    stopwatch = Stopwatch(device)
    stage_stream = StageStream(device, stopwatch=stopwatch)
    before = fake_cuda.live()["events"]
    for _ in range(5):
        with stage_stream.timed("a call"):
            pass
    assert len(stopwatch.take()) == 5
    assert fake_cuda.live()["events"] == before


def test_work_that_fails_is_not_counted(device: CudaDevice) -> None:
    stopwatch = Stopwatch(device)
    stage_stream = StageStream(device, stopwatch=stopwatch)
    with pytest.raises(ZeroDivisionError), stage_stream.timed("broken"):
        _ = 1 / 0
    assert stopwatch.take() == []


def test_a_lost_device_is_reported(device: CudaDevice, fake_cuda: Any) -> None:
    stopwatch = Stopwatch(device)
    with StageStream(device, stopwatch=stopwatch).timed("a call"):
        pass
    fake_cuda.lose()
    with pytest.raises(BackendError, match="cudaErrorIllegalAddress"):
        stopwatch.take()
