"""Ten thousand keys: host and emulated GPU draw the same ids, and those that are recorded in draws.npz.

`python tests/kernels/test_draws.py` records them anew, from the host's sampler. That must never be needed: answers that
were given once would not come again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine import _core
from omni2_kernels.decoding import ROW, new_rows

RECORDED = Path(__file__).parent / "draws.npz"
KEYS = 10_000
SETS = [(6_564, 9_500), (151_936, 500)]  # vocabulary, keys drawn from it; the rest of each set is greedy
GREEDY = 1_000
GROUP = 50  # rows of a launch
LISTED = 40


def logits_of(vocab: int, group: int) -> NDArray[np.float32]:
    """(GROUP, vocab): normals of our own generator, whose bits are frozen (tests/engine/test_random.py)."""
    logits = np.empty((GROUP, vocab), np.float32)
    for row in range(GROUP):
        _core.normal(logits[row], 77, 5, group, row % 10)
    logits *= np.float32(2.5)
    return logits


def groups() -> Iterator[tuple[NDArray[np.float32], NDArray[np.void], NDArray[np.int32]]]:
    """Launches of GROUP rows: logits, settings, ids so far; all by integer arithmetic, the same everywhere."""
    number = 0
    for vocab, count in SETS:
        for group in range((count + count * GREEDY // KEYS) // GROUP):
            rows = new_rows(GROUP)
            generated = np.empty((GROUP, LISTED), np.int32)
            for row in range(GROUP):
                i = number + row
                rows[row]["seed"] = i * 0x9E3779B97F4A7C15 % 2**64
                rows[row]["stream"], rows[row]["turn"], rows[row]["step"] = i % 2, i % 11, i * 31 % 4000
                rows[row]["temperature"] = [1, 1, 0.7, 1.3, 1, 1, 0.25, 1, 1, 4, 0][i % 11]
                rows[row]["top_k"] = [50, 50, 50, 20, 1, 0, 50, 1000, 50, 5][i % 10]
                rows[row]["penalty"] = [1, 1.05, 1, 1.5][i % 4]
                generated[row] = (i * 7919 + np.arange(LISTED) * 104_729) % vocab
            yield logits_of(vocab, group), rows, generated
            number += GROUP


def host_ids() -> NDArray[np.int32]:
    """What `_core` answers to all of them."""
    ids = []
    for logits, rows, generated in groups():
        for row in range(GROUP):
            s = rows[row]
            listed = generated[row, : min(int(s["step"]), LISTED)].astype(np.int64)
            ids.append(
                _core.sample(
                    logits[row],
                    listed,
                    float(s["penalty"]),
                    float(s["temperature"]),
                    int(s["top_k"]),
                    1.0,
                    int(s["seed"]),
                    int(s["stream"]),
                    int(s["turn"]),
                    int(s["step"]),
                )
            )
    return np.array(ids, np.int32)


def emulated_ids(decoding: Any) -> NDArray[np.int32]:
    """What the kernels answer."""
    ids = []
    batch = None
    for logits, rows, generated in groups():
        if batch is None or batch.logits.shape != logits.shape:
            batch = decoding(GROUP, logits.shape[1], capacity=LISTED)
        batch.logits[...], batch.generated[...] = logits, generated
        for name in ROW.names or ():
            if name not in ("state", "until", "spare"):
                batch.rows[name] = rows[name]
        ids.append(batch.choose().copy())
    return np.concatenate(ids)


def recorded() -> NDArray[np.int32]:
    with np.load(RECORDED) as file:
        ids: NDArray[np.int32] = file["ids"]
    return ids


def test_the_host_draws_what_is_recorded() -> None:
    assert np.array_equal(host_ids(), recorded())


def test_the_kernels_draw_what_is_recorded(decoding: Any) -> None:
    assert np.array_equal(emulated_ids(decoding), recorded())


def test_enough_is_recorded() -> None:
    temperatures = np.concatenate([rows["temperature"] for _, rows, _ in groups()])
    assert len(recorded()) == len(temperatures) == KEYS + GREEDY
    assert (temperatures > 0).sum() >= KEYS and (temperatures == 0).sum() >= GREEDY
    assert len(np.unique(recorded())) > 1000


if __name__ == "__main__":
    np.savez_compressed(RECORDED, ids=host_ids())
