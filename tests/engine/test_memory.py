"""Cache memory: zero, separate, taken as it fills and given back."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

from omni2_engine.memory import zeros

MIB = 2**20


def anonymous() -> int:
    """Anonymous resident memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_arrays_are_zero_and_do_not_overlap() -> None:
    arrays = zeros({"a": (3, 5), "b": (1,), "empty": (0, 4), "c": (2, 3, 7)})
    assert {name: array.shape for name, array in arrays.items()} == {
        "a": (3, 5),
        "b": (1,),
        "empty": (0, 4),
        "c": (2, 3, 7),
    }
    for number, array in enumerate(arrays.values(), start=1):
        assert array.dtype == np.float32 and array.flags.c_contiguous and array.flags.writeable
        assert not array.any()
        array[...] = number
    for number, array in enumerate(arrays.values(), start=1):
        assert (array == number).all()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_taken_as_it_fills_and_given_back() -> None:
    before = anonymous()
    for _ in range(3):  # the second time is what an ordinary allocator gets wrong
        arrays = zeros({str(index): (2 * MIB,) for index in range(40)})  # 8 MiB each
        assert anonymous() - before < 30 * MIB
        for array in arrays.values():
            array[: MIB // 4] = 1
        assert 30 * MIB < anonymous() - before < 80 * MIB
        del arrays, array
        gc.collect()
        assert anonymous() - before < 30 * MIB
