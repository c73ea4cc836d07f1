"""The structs of cuda/decoding.cuh for the host: numpy records with the same fields at the same offsets.

A batch of conversations is decoded on the device: a `ROW` is the state of each, `BATCH` holds the addresses. The host
sets a row when a multi-step decode begins, the kernels update it in every step, and a `REPORT`, in mapped memory, says
how many tokens it has.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import DTypeLike, NDArray

MOST_ENDS = 8
NO_ID = -1  # unused end id, free forced id; chosen where no logit is a usable number
BINS = 2048


class State(IntEnum):
    """The state of a row."""

    PARKED = 0
    """Takes part in no step; the model writes its results to the spare position."""
    RUNNING = 1
    """The model's inputs hold its last token; the next step runs the model and chooses."""
    PREFILLED = 2
    """Its logits are there, and no token is chosen from them yet."""
    JOINING = 3
    """Its last token is chosen but not among the model's inputs; `resume` puts it there."""


class Stop(IntEnum):
    """Why a row was parked."""

    NOT_STOPPED = 0
    END = 1
    """One of its end ids was chosen."""
    UNTIL = 2
    """It has as many tokens as were asked for."""
    NO_LOGIT = 3
    """No logit is a usable number; no token was written."""
    FULL = 4
    """No position in the cache, or in the list of its tokens, is left."""


class ElementType(IntEnum):
    """Types of embedding tables and of the model's inputs."""

    FLOAT32 = 0
    FLOAT16 = 1
    BFLOAT16 = 2


ROW = np.dtype(
    [
        ("seed", np.uint64),
        ("stream", np.uint32),
        ("turn", np.uint32),
        ("step", np.uint32),
        ("temperature", np.float32),
        ("penalty", np.float32),
        ("top_k", np.uint32),
        ("state", np.int32),
        ("stop", np.int32),
        ("until", np.uint32),
        ("forced", np.uint32),
        ("length", np.int64),
        ("spare", np.int64),
        ("ends", np.int32, (MOST_ENDS,)),
    ],
    align=True,
)
"""One conversation, 96 bytes; cuda/decoding.cuh describes each field, and says whether host or device sets it."""

REPORT = np.dtype([("step", np.uint32), ("stop", np.int32)], align=True)
"""Read by the host: tokens of the turn in the ring, and why the row was parked."""

CANDIDATE = np.dtype([("key", np.uint32), ("id", np.uint32)], align=True)
"""Scratch of the samplers: `vocab` for each row."""

CONTEST = np.dtype(
    [
        ("best", np.uint64),
        ("winner", np.uint64),
        ("arrived", np.uint32),
        ("cut", np.uint32),
        ("rank", np.uint32),
        ("candidates", np.uint32),
        ("histogram", np.uint32, (BINS,)),
    ],
    align=True,
)
"""Scratch of the samplers: one for each row, all zero before the first step."""

POINTERS = (
    "rows",
    "logits",
    "chosen",
    "contests",
    "candidates",
    "generated",
    "forced",
    "tokens",
    "reports",
    "hidden",
    "hidden_ring",
    "table",
    "embeds",
    "positions",
    "write",
    "mask",
)

BATCH = np.dtype(
    [
        *((name, np.uint64) for name in POINTERS),
        ("logits_stride", np.int64),
        ("hidden_stride", np.int64),
        ("vocab", np.int32),
        ("table_rows", np.int32),
        ("width", np.int32),
        ("visible", np.int32),
        ("generated_capacity", np.int32),
        ("forced_capacity", np.int32),
        ("token_ring_size", np.int32),
        ("hidden_ring_size", np.int32),
        ("table_type", np.int32),
        ("embeds_type", np.int32),
    ],
    align=True,
)
"""A batch of rows, 184 bytes, passed to kernels by value; pointers are device addresses, 0 where there is none."""


def element_type(dtype: DTypeLike) -> ElementType:
    """The kernels' name of a dtype of `EmbeddingTable`: float32, float16, or bfloat16 kept as uint16.

    Raises:
        ValueError: another dtype.
    """
    types = {
        np.dtype(np.float32): ElementType.FLOAT32,
        np.dtype(np.float16): ElementType.FLOAT16,
        np.dtype(np.uint16): ElementType.BFLOAT16,
    }
    try:
        return types[np.dtype(dtype)]
    except KeyError:
        raise ValueError(f"kernels know float32, float16 and bfloat16 (kept as uint16), not {dtype}") from None


def new_rows(count: int) -> NDArray[np.void]:
    """`count` parked rows of `ROW` without penalty or end ids; the caller sets the rest."""
    rows = np.zeros(count, ROW)
    rows["penalty"] = 1
    rows["ends"] = NO_ID
    return rows
