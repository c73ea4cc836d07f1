"""Random numbers: the generator's published vectors, the distributions' moments and shape, what a draw depends on."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from omni2_engine import _core, sampling
from omni2_engine.errors import SettingError
from omni2_engine.sampling import DrawKey, Stream

ONES = 0xFFFFFFFF
WORD = st.integers(0, 2**32 - 1)
KEY = DrawKey(seed=2025, stream=Stream.SPEECH, turn=0)

KNOWN_ANSWERS = [  # kat_vectors of Random123 (Salmon et al. 2011), philox4x32 with 10 rounds: counter, key, answer
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([ONES] * 4, [ONES] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def philox(counter: list[int], key: list[int]) -> list[int]:
    return [int(word) for word in _core.philox4x32(np.array(counter, np.uint32), np.array(key, np.uint32))]


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """The published algorithm in Python integers."""
    x, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(b >> 32) ^ x[1] ^ k[0], b & ONES, (a >> 32) ^ x[3] ^ k[1], a & ONES]
        k = [(k[0] + 0x9E3779B9) & ONES, (k[1] + 0xBB67AE85) & ONES]
    return x


def words_of_draw(count: int, seed: int, stream: int, turn: int, step: int) -> NDArray[np.uint32]:
    """Words behind a draw's first elements: counter [block, step, turn, stream], key the seed, low word first."""
    key = [seed & ONES, seed >> 32]
    blocks = [plain_philox([block, step, turn, stream], key) for block in range(-(-count // 4))]
    return np.array(blocks, np.uint32).reshape(-1)[:count]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_published_vectors(counter: list[int], key: list[int], answer: list[int]) -> None:
    assert philox(counter, key) == answer


@given(st.lists(WORD, min_size=4, max_size=4), st.lists(WORD, min_size=2, max_size=2))
def test_philox_is_the_published_algorithm(counter: list[int], key: list[int]) -> None:
    assert philox(counter, key) == plain_philox(counter, key)


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), WORD, WORD, WORD)
def test_uniforms_are_the_packed_counters_words(seed: int, stream: int, turn: int, step: int) -> None:
    out = np.empty(21, np.float32)
    _core.uniform(out, seed, stream, turn, step)
    words = words_of_draw(21, seed, stream, turn, step)
    assert np.array_equal(out, (((words >> 9) + 0.5) / 2**23).astype(np.float32))


def test_normals_are_box_muller_of_the_words() -> None:
    count = 4096
    words = words_of_draw(count, 2025, Stream.SPEECH, 0, 5).astype(np.float64).reshape(-1, 2)
    radius = np.sqrt(-2 * np.log((np.floor(words[:, 0] / 2) + 0.5) / 2**31))
    angle = 2 * np.pi * words[:, 1] / 2**32
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
    drawn = sampling.normal((count,), KEY, 5)
    assert np.abs(drawn - expected).max() < 2e-6


def test_numbers_never_change() -> None:
    """Frozen bits: another compiler, flag or polynomial that moves a single one breaks every stored answer."""
    drawn = sampling.normal((1 << 16,), DrawKey(1, Stream.FLOW_NOISE, 2), 3)
    assert zlib.crc32(drawn.astype("<f4").tobytes()) == 0x247B2E01


def test_uniform_moments_and_range() -> None:
    drawn = sampling.uniform(-math.pi, math.pi, (1 << 20,), KEY, 0).astype(np.float64)
    assert drawn.min() > -math.pi and drawn.max() < math.pi
    assert abs(drawn.mean()) < 5 * math.pi / math.sqrt(3 * drawn.size)
    assert drawn.var() == pytest.approx(math.pi**2 / 3, rel=5e-3)


def test_unit_uniforms_never_reach_the_ends() -> None:
    out = np.empty(1 << 24, np.float32)
    _core.uniform(out, 0, 0, 0, 0)
    assert 0 < out.min() < 1e-6 and 1 - 1e-6 < out.max() < 1


def test_normal_moments_tails_and_shape() -> None:
    drawn = sampling.normal((1 << 20,), KEY, 1).astype(np.float64)
    n = drawn.size
    assert abs(drawn.mean()) < 5 / math.sqrt(n)
    assert abs(drawn.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((drawn**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((drawn**4).mean() - 3) < 5 * math.sqrt(96 / n)
    expected_tail = n * math.erfc(4 / math.sqrt(2))
    assert abs((np.abs(drawn) > 4).sum() - expected_tail) < 5 * math.sqrt(expected_tail)
    ordered = np.sort(drawn)
    cdf = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in ordered[:: n // 4096]])
    distance = np.abs(cdf - np.arange(n)[:: n // 4096] / n).max()
    assert distance < 1.95 / math.sqrt(n)  # Kolmogorov–Smirnov, level 0.001


def test_neighbours_are_uncorrelated() -> None:
    drawn = sampling.normal((1 << 18,), KEY, 2).astype(np.float64)
    next_step = sampling.normal((1 << 18,), KEY, 3).astype(np.float64)
    for other in (np.roll(drawn, 1), np.roll(drawn, 2), np.roll(drawn, 4), next_step):
        assert abs((drawn * other).mean()) < 5 / math.sqrt(drawn.size)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 63, 255, 256, 257, 1023, 5000])
def test_a_longer_draw_starts_with_the_shorter(count: int) -> None:
    long = sampling.normal((6000,), KEY, 7)
    assert np.array_equal(sampling.normal((count,), KEY, 7), long[:count])


def test_shape_does_not_matter() -> None:
    flat = sampling.normal((30,), KEY, 8)
    assert np.array_equal(sampling.normal((2, 3, 5), KEY, 8).reshape(-1), flat)


def test_every_part_of_the_key_matters() -> None:
    keys = [
        KEY,
        DrawKey(2026, Stream.SPEECH, 0),
        DrawKey(2025 + 2**32, Stream.SPEECH, 0),
        DrawKey(2025, Stream.TEXT, 0),
        DrawKey(2025, Stream.SPEECH, 1),
    ]
    draws = [sampling.normal((64,), key, step) for key in keys for step in (0, 1)]
    assert len({draw.tobytes() for draw in draws}) == len(draws)


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (np.empty(4, np.float64), "C-contiguous float32"),
        (np.empty(8, np.float32)[::2], "C-contiguous float32"),
        (np.broadcast_to(np.float32(0), (4,)), "C-contiguous float32"),
        (np.frombuffer(bytes(16), np.float32), "writeable"),
    ],
)
def test_unusable_arrays_are_refused(out: NDArray[np.float32], words: str) -> None:
    for fill in (_core.uniform, _core.normal):
        with pytest.raises(ValueError, match=words):
            fill(out, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        ((-1, 0, 0, 0), "seed"),
        ((2**64, 0, 0, 0), "seed"),
        ((0, 2**32, 0, 0), "stream"),
        ((0, 0, -1, 0), "turn"),
        ((0, 0, 0, 2**32), "step"),
    ],
)
def test_numbers_out_of_range_are_named(numbers: tuple[int, int, int, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        _core.normal(np.empty(4, np.float32), *numbers)


def test_philox_wants_four_words_and_two() -> None:
    with pytest.raises(ValueError, match="counter must be a uint32 array of 4"):
        _core.philox4x32(np.zeros(3, np.uint32), np.zeros(2, np.uint32))
    with pytest.raises(ValueError, match="key must be a uint32 array of 2"):
        _core.philox4x32(np.zeros(4, np.uint32), np.zeros(2, np.int64))


@pytest.mark.parametrize(("seed", "turn"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**32)])
def test_draw_key_refuses_what_does_not_fit(seed: int, turn: int) -> None:
    with pytest.raises(SettingError):
        DrawKey(seed, Stream.TEXT, turn)
