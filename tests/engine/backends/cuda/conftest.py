"""A stream of the stand-in device."""

from __future__ import annotations

import pytest

from omni2_engine._core import CudaDevice, CudaStream


@pytest.fixture
def stream(device: CudaDevice) -> CudaStream:
    return device.stream()
