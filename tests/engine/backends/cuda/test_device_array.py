"""Views of device memory lie where NumPy's would, and copies of rows move exactly their bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from omni2_engine.backends.cuda.array import DeviceArray, row_copies

BASE = 1 << 32
DTYPES = [np.dtype(np.float32), np.dtype(np.uint16)]


def like(array: np.ndarray) -> DeviceArray:
    return DeviceArray.whole(BASE, array.shape, array.dtype, None)


@st.composite
def indexed(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """A shape, and an index NumPy takes for it."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    index: list[Any] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        start = draw(st.integers(-size, size - 1))
        index.append(draw(st.sampled_from([start, slice(start, None), slice(None, start + 1), slice(1, 3)])))
    return shape, tuple(index)


@given(indexed(), st.sampled_from(DTYPES))
def test_a_view_lies_where_numpys_does(case: tuple[tuple[int, ...], tuple[Any, ...]], dtype: np.dtype[Any]) -> None:
    shape, index = case
    array = np.zeros(shape, dtype)
    view, expected = like(array)[index], array[(*index, ...)]  # the dots: a view, never a scalar
    assert view.shape == expected.shape
    if expected.size:
        offset = expected.__array_interface__["data"][0] - array.__array_interface__["data"][0]
        assert view.address - BASE == offset
        assert view.contiguous == expected.flags.c_contiguous
        assert view.nbytes == expected.nbytes


@given(indexed(), st.integers(0, 3), st.sampled_from(DTYPES))
def test_rows_move_exactly_what_is_in_a_view(
    case: tuple[tuple[int, ...], tuple[Any, ...]], wider: int, dtype: np.dtype[Any]
) -> None:
    shape, index = case
    room = (*shape[:-1], shape[-1] + wider)
    source = np.arange(np.prod(shape), dtype=np.uint32).astype(dtype).reshape(shape)
    target = np.full(room, 77, dtype)
    trimmed = like(target)[tuple([slice(None)] * (len(shape) - 1) + [slice(shape[-1])])]
    expected = target.copy()
    expected[..., : shape[-1]][index] = source[index]
    for rows in row_copies(trimmed[index], like(source)[index]):
        there, here = (
            as_strided(
                array.reshape(-1).view(np.uint8)[address - BASE :], (rows.rows, rows.width), (pitch, 1), writeable=True
            )
            for array, address, pitch in ((target, rows.to, rows.to_pitch), (source, rows.source, rows.source_pitch))
        )
        there[...] = here
    np.testing.assert_array_equal(target, expected)


def test_a_prefix_of_all_heads_of_some_slots_is_one_copy() -> None:
    cache, shorter = np.zeros((8, 4, 64, 16), np.float32), np.zeros((2, 4, 32, 16), np.float32)
    (rows,) = row_copies(like(cache)[2:4, :, :20], like(shorter)[:, :, :20])
    assert (rows.rows, rows.width) == (2 * 4, 20 * 16 * 4)
    assert (rows.to_pitch, rows.source_pitch) == (64 * 16 * 4, 32 * 16 * 4)
    assert rows.to == BASE + 2 * 4 * 64 * 16 * 4


def test_what_does_not_fit_is_refused() -> None:
    array = like(np.zeros((2, 3), np.float32))
    with pytest.raises(IndexError, match="out of bounds"):
        array[2]
    with pytest.raises(IndexError, match="3 indices"):
        array[0, 0, 0]
    with pytest.raises(IndexError, match="no steps"):
        array[::2]
    with pytest.raises(ValueError, match="does not fit"):
        list(row_copies(array, array[:1]))
    with pytest.raises(ValueError, match="does not fit"):
        list(row_copies(array, like(np.zeros((2, 3), np.int32))))
