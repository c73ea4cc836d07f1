"""The next embedding between every two types, against numpy's and ml_dtypes' conversions."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from omni2_kernels.decoding import State

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


def embedded(decoding: Any, rows: NDArray[Any], ids: list[int], out: str) -> NDArray[Any]:
    """What `sample_and_embed` puts among the model's next inputs when these ids were chosen."""
    batch = decoding(len(ids), len(rows), width=rows.shape[1], table=rows, embeds=TYPES[out])
    batch.chosen[...] = ids
    batch.run("sample_and_embed", State.RUNNING)
    return np.array(batch.embeds)


@pytest.mark.parametrize("out", TYPES)
@pytest.mark.parametrize("table", TYPES)
def test_conversions_round_as_numpy_does(decoding: Any, table: str, out: str) -> None:
    rows = stored(awkward_values(), table)[None]
    (got,) = embedded(decoding, rows, [0], out)
    (wanted,) = stored(rows.view(MEANT[table]).astype(np.float32), out)
    nan = np.isnan(wanted.view(MEANT[out]).astype(np.float32))
    assert np.array_equal(np.isnan(got.view(MEANT[out]).astype(np.float32)), nan)
    bits = f"u{got.itemsize}"
    assert np.array_equal(got.view(bits)[~nan], wanted.view(bits)[~nan])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("out", TYPES)
@pytest.mark.parametrize("table", TYPES)
def test_the_next_embedding_is_the_tokens_row(decoding: Any, table: str, out: str, width: int) -> None:
    rows = stored(np.random.default_rng(width).normal(size=(20, width)), table)
    ids = [19, 4, 0, 4]
    wanted = stored(rows[ids].view(MEANT[table]).astype(np.float32), out)
    assert np.array_equal(embedded(decoding, rows, ids, out), wanted)


def test_a_token_beyond_the_table_gives_nan(decoding: Any) -> None:
    """A caller's mistake must show. The vocabulary may be larger than the table."""
    table = np.ones((5, 3), np.float32)
    batch = decoding(2, 8, width=3, table=table)
    batch.chosen[...] = [4, 5]
    batch.run("sample_and_embed", State.RUNNING)
    assert batch.embeds.tolist()[0] == [1, 1, 1]
    assert np.isnan(batch.embeds[1]).all()
