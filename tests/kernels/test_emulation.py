"""The emulated block itself: barriers are real, and what a GPU would hang on is told."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from omni2_kernels.decoding import State
from omni2_kernels.launch import Launch
from omni2_kernels.registry import KERNELS

ORDERS = range(60)
VOCAB, WIDTH = 12_000, 300
LOGITS = {
    "usual": lambda noise: 3 * noise,
    "narrow": lambda noise: 10 + 1e-4 * noise,  # all scores in one bin, and nearly all bits the same
    "wide": lambda noise: np.exp(9 * noise),  # in many bins
}


@lru_cache
def inputs() -> dict[str, Any]:
    """Numbers for one row, and a table."""
    random = np.random.default_rng(5)
    noise = random.normal(size=(1, VOCAB))
    logits = {name: function(noise).astype(np.float32) for name, function in LOGITS.items()}
    table = (noise.T + np.arange(WIDTH)).astype(np.float32)
    listed = np.argsort(-noise)[:, :40]
    return {"logits": logits, "listed": listed, "hidden": random.normal(size=(1, WIDTH)), "table": table}


def outcome(decoding: Any, order: int, logits: str) -> bytes:
    """All that three steps leave behind, from kernels that use every barrier there is."""
    given = inputs()
    batch = decoding(1, VOCAB, width=WIDTH, table=given["table"])
    batch.emulator.library.omni2_emulated_order(order)
    batch.logits[...], batch.hidden[...] = given["logits"][logits], given["hidden"]
    batch.rows["temperature"] = 1e30  # any of those kept may win: a kernel that keeps others is found
    batch.rows["top_k"] = 200
    batch.rows["penalty"], batch.rows["step"] = 1.5, 30
    batch.generated[...] = given["listed"]
    left: list[Any] = []
    try:
        for _ in range(3):
            batch.run("rank_logits", State.RUNNING)
            left += [batch.contests["cut"].copy(), batch.contests["rank"].copy()]
            batch.run("draw_token", State.RUNNING)
            batch.run("sample_and_embed", State.RUNNING)
            left += [batch.chosen.copy(), batch.rows.copy(), batch.embeds.copy(), batch.mask.copy()]
        batch.rows["state"] = State.JOINING
        batch.run("resume")
    except RuntimeError as error:
        return str(error).encode()
    left += [batch.rows, batch.embeds, batch.mask, batch.hidden_ring, batch.generated]
    return b"".join(array.tobytes() for array in left)


def test_the_order_of_threads_does_not_matter_and_every_barrier_does(decoding: Any) -> None:
    expected = {logits: outcome(decoding, 0, logits) for logits in LOGITS}
    assert all(outcome(decoding, order, logits) == expected[logits] for order in ORDERS[:8] for logits in LOGITS)
    library = decoding(1, 8).emulator.library
    library.omni2_emulated_barrier.restype = ctypes.c_char_p
    unmissed = []
    index = 0
    while (place := library.omni2_emulated_barrier(index)) is not None:
        library.omni2_emulated_leave_out(index, 1)
        seen = any(outcome(decoding, order, logits) != expected[logits] for order in ORDERS for logits in LOGITS)
        library.omni2_emulated_leave_out(index, 0)
        if not seen:
            unmissed.append(place.decode())
        index += 1
    assert index > 10
    assert unmissed == []


def test_threads_that_wait_for_ever_are_told(emulator: Any, decoding: Any) -> None:
    batch = decoding(1, 100)
    launch = KERNELS["rank_logits"].launch({"rows": 1, "vocab": 100}, batch.batch, State.RUNNING)
    with pytest.raises(RuntimeError, match="rank_logits: block 0, 0 is stuck: 8 threads wait for their warp"):
        emulator.launch(Launch(launch.kernel, launch.grid, (40, 1, 1), launch.arguments))
    emulator.launch(launch)  # and the next launch is not hurt


@pytest.mark.parametrize(
    ("kernel", "grid", "block", "words"),
    [
        ("nothing", (1, 1, 1), (256, 1, 1), "no kernel of this name"),
        ("resume", (0, 1, 1), (256, 1, 1), "grid is empty"),
        ("resume", (1, 1, 1), (0, 1, 1), "a block has 1 to 1024 threads"),
        ("resume", (1, 1, 1), (32, 33, 1), "a block has 1 to 1024 threads"),
    ],
)
def test_launches_that_cuda_refuses(decoding: Any, kernel: str, grid: Any, block: Any, words: str) -> None:
    batch = decoding(1, 8)
    with pytest.raises(RuntimeError, match=words):
        batch.emulator.launch(Launch(kernel, grid, block, (batch.batch.tobytes(),)))
