"""Embedding look-up between every two types, against numpy's and ml_dtypes' conversions."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from omni2_kernels.decoding import State, element_type

TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
MEANT = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
WIDTHS = [1, 7, 255, 256, 257, 896]


def stored(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Values as memory holds them: bfloat16 as uint16."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(MEANT[name]).view(TYPES[name])


def awkward_values() -> NDArray[np.float32]:
    """Every float16, what lies halfway between two of them or two bfloat16s, denormals, and what overflows."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    random = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    ties = random & 0xFFFF8000
    values = [halves, random.view(np.float32), ties.view(np.float32), (random & 0xFFFFF000).view(np.float32)]
    near = [65503.99, 65504, 65519.99, 65520, 65536, 6.1e-5, 5.96e-8, 2.98e-8, 2.9802323e-8, 1e-45, 3.4e38, 0.0, np.inf]
    values += [np.array(near, np.float32), -np.array(near, np.float32)]
    return np.concatenate(values)


@pytest.mark.parametrize("out", TYPES)
@pytest.mark.parametrize("table", TYPES)
def test_conversions_round_as_numpy_does(emulator: Any, table: str, out: str) -> None:
    rows = stored(awkward_values(), table)[None]
    width = rows.shape[1]
    gathered = np.empty((1, width), TYPES[out])
    ids = np.zeros(1, np.int32)
    sizes = {"rows": 1, "width": width}
    types = [element_type(rows.dtype), element_type(gathered.dtype)]
    emulator.run(
        "gather_rows",
        sizes,
        rows.ctypes.data,
        types[0],
        1,
        ids.ctypes.data,
        gathered.ctypes.data,
        types[1],
        width,
        width,
    )
    wanted = stored(rows.view(MEANT[table]).astype(np.float32), out)
    nan = np.isnan(wanted.view(MEANT[out]).astype(np.float32))
    assert np.array_equal(np.isnan(gathered.view(MEANT[out]).astype(np.float32)), nan)
    bits = f"u{gathered.itemsize}"
    assert np.array_equal(gathered.view(bits)[~nan], wanted.view(bits)[~nan])


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_by_ids_into_a_larger_array(emulator: Any, width: int) -> None:
    random = np.random.default_rng(width)
    table = random.normal(size=(11, width)).astype(np.float16)
    ids = np.array([3, 0, 10, 3, -1, 11], np.int32)
    out = np.full((len(ids), width + 3), 8, np.float32)
    source = (table.ctypes.data, element_type(table.dtype), len(table), ids.ctypes.data)
    target = (out.ctypes.data, element_type(out.dtype), width, width + 3)
    emulator.run("gather_rows", {"rows": len(ids), "width": width}, *source, *target)
    assert np.array_equal(out[:4, :width], table[ids[:4]].astype(np.float32))
    assert np.isnan(out[4:, :width]).all()  # no such rows
    assert (out[:, width:] == 8).all()


@pytest.mark.parametrize("embeds", TYPES)
@pytest.mark.parametrize("table", TYPES)
def test_the_next_embedding_is_the_tokens_row(decoding: Any, table: str, embeds: str) -> None:
    rows = stored(np.random.default_rng(2).normal(size=(20, 300)), table)
    batch = decoding(2, 20, width=300, table=rows, embeds=TYPES[embeds])
    batch.chosen[...] = [19, 4]
    batch.run("sample_and_embed", State.RUNNING)
    wanted = stored(rows[[19, 4]].view(MEANT[table]).astype(np.float32), embeds)
    assert np.array_equal(batch.embeds, wanted)
