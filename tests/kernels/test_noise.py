"""Random numbers on the emulated device: the bits of the host's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omni2_engine.sampling import DrawKey, Stream, normal, uniform
from omni2_kernels.registry import DRAW_KEY

KEY = DrawKey(2**63 + 11, Stream.VOCODER_NOISE, 3)
COUNTS = [1, 2, 3, 4, 5, 1023, 1024, 1025, 9 * 12_000]


def key_record(step: int) -> Any:
    return np.array((KEY.seed, KEY.stream, KEY.turn, step), DRAW_KEY)[()]


@pytest.mark.parametrize("count", COUNTS)
def test_normals(emulator: Any, count: int) -> None:
    out = np.full(count + 1, 7, np.float32)
    emulator.run("fill_normal", {"numbers": count}, out.ctypes.data, count, key_record(5))
    assert np.array_equal(out[:-1].view(np.uint32), normal((count,), KEY, 5).view(np.uint32))
    assert out[-1] == 7


@pytest.mark.parametrize("count", COUNTS)
def test_uniforms(emulator: Any, count: int) -> None:
    out = np.full(count + 1, 7, np.float32)
    low, high = -np.pi, np.pi
    emulator.run("fill_uniform", {"numbers": count}, out.ctypes.data, count, key_record(6), high - low, low)
    assert np.array_equal(out[:-1].view(np.uint32), uniform(low, high, (count,), KEY, 6).view(np.uint32))
    assert out[-1] == 7
