"""Every kernel: where its source is, what it takes, on what grid it runs, and what memory it moves.

Times are floors: the bytes moved over `BANDWIDTH`, at the sizes given. A launch itself takes some microseconds on
top: `sample_and_embed` and `resume` are bound by that, the samplers by memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from omni2_kernels.decoding import BATCH, ROW
from omni2_kernels.launch import Kernel, Parameter, Sizes

TILE = 4096  # logits a block of the samplers takes: 16 a thread

# What floors are stated for: eight conversations with a 7B model in 16 bits.
SIZES: Sizes = {
    "rows": 8,
    "vocab": 158_498,  # text and speech units
    "generated": 256,
    "width": 3584,
    "visible": 4096,
    "element": 2,
}


def _parameters(**types: tuple[str, DTypeLike]) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, type_, np.dtype(dtype)) for name, (type_, dtype) in types.items())


_BATCH = ("Batch", BATCH)
_INT32 = ("int32_t", np.int32)


def _tiles(count: int) -> int:
    return -(-count // TILE)


def _rank_moved(s: Sizes) -> int:
    """Every logit once, and in each block the ids that the row has generated."""
    return s["rows"] * (4 * s["vocab"] + 4 * s["generated"] * _tiles(s["vocab"]))


def _embed_moved(s: Sizes) -> int:
    """A row of the table to the inputs, a hidden state to the ring, and the row itself."""
    return s["rows"] * (2 * s["element"] * s["width"] + 2 * 4 * s["width"] + 2 * ROW.itemsize)


_ALL = (
    Kernel(
        "rank_logits",
        "choose.cu",
        _parameters(batch=_BATCH, serve=_INT32),
        ("rows", "vocab"),
        lambda s: (_tiles(s["vocab"]), s["rows"], 1),
        _rank_moved,
        """First half of choosing a token: the greatest score of every row in state `serve`, after the repetition
        penalty, which decides a greedy row; for top-k, also which scores can be among the k greatest. Reads every logit
        once; the L2 cache may still have some, as the model has just written them.""",
    ),
    Kernel(
        "draw_token",
        "choose.cu",
        _parameters(batch=_BATCH, serve=_INT32),
        ("rows", "vocab"),
        lambda s: (_tiles(s["vocab"]), s["rows"], 1),
        _rank_moved,
        """Second half, for rows with a temperature above 0: the Gumbel race among what top-k keeps, with the random
        numbers and the answers of `_core.sample`. Reads every logit again, now from the L2 cache; greedy rows cost
        nothing.""",
    ),
    Kernel(
        "sample_and_embed",
        "continue.cu",
        _parameters(batch=_BATCH, serve=_INT32),
        ("rows",),
        lambda s: (s["rows"], 1, 1),
        _embed_moved,
        """What follows the choice, for every row in state `serve`: the token goes into the row's list and ring, the
        hidden state that produced it into the hidden ring, and its embedding, position and mask among the model's next
        inputs; or the row is parked at its end.""",
    ),
    Kernel(
        "resume",
        "continue.cu",
        _parameters(batch=_BATCH),
        ("rows",),
        lambda s: (s["rows"], 1, 1),
        lambda s: s["rows"] * (2 * s["element"] * s["width"] + s["visible"] + 2 * ROW.itemsize),
        """Sets the model's inputs when a multi-step decode begins: the last token of every joining row, the spare
        position of every parked one. Running rows stay as they are.""",
    ),
)

KERNELS: Mapping[str, Kernel] = {kernel.name: kernel for kernel in _ALL}
SOURCES: tuple[str, ...] = tuple(dict.fromkeys(kernel.source for kernel in _ALL))
