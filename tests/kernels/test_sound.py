"""Cross-fade and 16-bit samples on the emulated device: the bits of `omni2_kernels.audio`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from omni2_kernels.audio import cross_fade, fade_window, pack_pcm16

OVERLAPS = [1, 2, 255, 256, 257, 3840]


def packed(emulator: Any, pcm: NDArray[np.float32]) -> NDArray[np.int16]:
    out = np.full(len(pcm) + 1, 99, np.int16)
    emulator.run("pack_pcm16", {"samples": len(pcm)}, pcm.ctypes.data, out.ctypes.data, len(pcm))
    assert out[-1] == 99
    return out[:-1]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_fade(emulator: Any, overlap: int, in_place: bool) -> None:
    random = np.random.default_rng(overlap)
    head, tail = (random.normal(size=overlap).astype(np.float32) for _ in range(2))
    head[0] = 3e38  # with the tail's the sum overflows a float32 product, but no float64 one
    wanted = cross_fade(head, tail)
    out = head if in_place else np.empty(overlap + 1, np.float32)
    window = np.array(fade_window(overlap))
    emulator.run(
        "cross_fade",
        {"overlap": overlap},
        *(array.ctypes.data for array in (head, tail, window, out)),
        overlap,
    )
    assert np.array_equal(out[:overlap], wanted)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hnp.arrays(np.float32, st.integers(1, 600), elements=st.floats(width=32) | st.floats(-1.25, 1.25, width=32)))
def test_any_samples(emulator: Any, pcm: NDArray[np.float32]) -> None:
    assert np.array_equal(packed(emulator, pcm), pack_pcm16(pcm))


def test_every_sample_and_every_tie(emulator: Any) -> None:
    """Halfway between two integers the even one is taken."""
    halves = (np.arange(-65_534, 65_535) / 2 / 32767).astype(np.float32)
    pcm = np.concatenate([halves, np.nextafter(halves, np.float32(2)), np.array([np.nan, np.inf, -np.inf], np.float32)])
    out = packed(emulator, pcm)
    assert np.array_equal(out, pack_pcm16(pcm))
    assert out[-3:].tolist() == [0, 32767, -32767]
