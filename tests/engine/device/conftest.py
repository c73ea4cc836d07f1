"""The stand-in device."""

from __future__ import annotations

from typing import Any

import pytest

from omni2_engine._core import CudaDevice, CudaStream
from omni2_engine.device.lane import Lane


@pytest.fixture
def device(fake_cuda: Any) -> CudaDevice:
    return CudaDevice(fake_cuda.path)


@pytest.fixture
def stream(device: CudaDevice) -> CudaStream:
    return device.stream()


@pytest.fixture
def lane(device: CudaDevice) -> Lane:
    return Lane(device)
