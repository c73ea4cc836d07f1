"""The GPU's samplers on the emulated device: the very ids of the host's, for any logits, settings and sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from omni2_engine import _core
from omni2_kernels.decoding import NO_ID, State
from omni2_kernels.registry import TILE

INF, NAN = np.inf, np.nan
FULL_SIZES = [151_936, 158_498]  # vocabularies of the released text and speech models
ODD_SIZES = [1, 2, 31, 33, 255, 257, TILE - 1, TILE, TILE + 1, 3 * TILE - 7]


def expected(batch: Any, row: int) -> int:
    """What the host's sampler answers, -1 where it says that there is none."""
    s = batch.rows[row]
    vocab, count = int(batch.batch["vocab"]), min(int(s["step"]), batch.generated.shape[1])
    logits = np.ascontiguousarray(batch.logits[row, :vocab])
    ids = batch.generated[row, :count].astype(np.int64)
    try:
        return _core.sample(
            logits,
            ids[(ids >= 0) & (ids < vocab)],
            float(s["penalty"]),
            float(s["temperature"]),
            int(s["top_k"]),
            1.0,
            int(s["seed"]),
            int(s["stream"]),
            int(s["turn"]),
            int(s["step"]),
        )
    except _core.NoCandidateError:
        return NO_ID


def draw_settings(random: np.random.Generator, rows: Any, vocab: int) -> None:
    """Other settings in every row."""
    n = len(rows)
    rows["temperature"] = random.choice([0, 0.5, 1, 2, 1e-30, 1e30], size=n)
    rows["top_k"] = random.choice([0, 1, 2, 50, vocab // 2, max(vocab - 1, 1), vocab, vocab + 1, 2**32 - 1], size=n)
    rows["penalty"] = random.choice([1, 1, 1.05, 0.7, 3], size=n)
    rows["seed"] = random.integers(0, 2**64, size=n, dtype=np.uint64)
    rows["stream"], rows["turn"] = random.integers(0, 5, size=n), random.integers(0, 2**32, size=n)
    rows["step"] = random.integers(0, 45, size=n)  # some beyond the list's capacity


def make_logits(kind: str, random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    noise = random.normal(size=shape)
    match kind:
        case "usual":
            return 3 * noise
        case "far from zero":
            return 1000 + noise
        case "ties":
            return np.round(noise)
        case "all equal":
            return np.full(shape, random.normal())
        case "ascending":
            return np.sort(noise, axis=-1)
        case "wide":
            return np.sign(noise) * np.exp(40 * noise)  # to denormals and near the greatest float
        case "half of them NaN":
            return np.where(random.random(shape) < 0.5, NAN, noise)
        case "nearly all minus infinity":
            return np.where(random.random(shape) < 0.98, -INF, noise)
        case "only special values":
            return random.choice([-INF, INF, NAN, 0.0, -0.0, 1e-45, 3.4e38, -3.4e38], size=shape)
        case "minus infinity or NaN":
            return random.choice([-INF, NAN], size=shape)
        case "NaN":
            return np.full(shape, NAN)
    raise ValueError(kind)


KINDS = [
    "usual",
    "far from zero",
    "ties",
    "all equal",
    "ascending",
    "wide",
    "half of them NaN",
    "nearly all minus infinity",
    "only special values",
    "minus infinity or NaN",
    "NaN",
]


def assert_all_as_expected(batch: Any) -> None:
    chosen = batch.choose().tolist()
    assert chosen == [expected(batch, row) for row in range(len(batch.rows))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_batch_of_mixed_settings(decoding: Any, kind: str) -> None:
    """Rows lie further apart than they are long; threads run in some other order."""
    random = np.random.default_rng(KINDS.index(kind))
    for order, vocab in enumerate(ODD_SIZES):
        batch = decoding(7, vocab, logits_stride=vocab + order % 4)
        batch.logits[...] = 9e9  # beyond the vocabulary: must not win
        batch.logits[:, :vocab] = make_logits(kind, random, (7, vocab))
        batch.generated[...] = random.integers(0, vocab, size=batch.generated.shape)
        draw_settings(random, batch.rows, vocab)
        batch.emulator.library.omni2_emulated_order(order)
        assert_all_as_expected(batch)


@pytest.mark.parametrize("vocab", FULL_SIZES)
def test_whole_vocabularies(decoding: Any, vocab: int) -> None:
    random = np.random.default_rng(vocab)
    batch = decoding(6, vocab)
    batch.logits[...] = 3 * random.normal(size=batch.logits.shape)
    batch.logits[4] = np.round(batch.logits[4])
    batch.rows["temperature"] = [0, 0, 1, 0.7, 1, 1]
    batch.rows["top_k"] = [0, 50, 50, 50, 50, 0]
    batch.rows["penalty"] = [1, 1.2, 1, 1.05, 1, 1]
    batch.rows["seed"], batch.rows["step"] = 2025, 39
    batch.generated[...] = np.argsort(-batch.logits, axis=1)[:, : batch.generated.shape[1]]
    assert_all_as_expected(batch)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_greedy_is_argmax_of_penalised_logits(decoding: Any, data: st.DataObject) -> None:
    """Against numpy: NaN ignored, ties to the lowest id, each id penalised once."""
    values = st.one_of(st.floats(-9, 9, width=16), st.sampled_from([-INF, INF, NAN, 0.0, -0.0, 1.0]))
    logits = np.array(data.draw(st.lists(values, min_size=1, max_size=60)), np.float32)
    ids = data.draw(st.lists(st.integers(-3, len(logits) + 3), max_size=40))
    penalty = np.float32(data.draw(st.floats(0.5, 2, width=32)))
    batch = decoding(1, len(logits))
    batch.logits[0] = logits
    batch.generated[0, : len(ids)] = ids
    batch.rows["step"], batch.rows["penalty"] = len(ids), penalty
    seen = np.unique([i for i in ids if 0 <= i < len(logits)]).astype(int)
    scores = logits.copy()
    scores[seen] = np.where(scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty)
    scores = np.where(np.isnan(scores), -INF, scores)
    best = NO_ID if np.isnan(logits).all() else int(np.flatnonzero((scores == scores.max()) & ~np.isnan(logits))[0])
    assert batch.choose()[0] == best


def test_the_first_of_equals_wins_wherever_blocks_end(decoding: Any) -> None:
    batch = decoding(1, 3 * TILE)
    for first in (0, 1, TILE - 1, TILE, 2 * TILE + 5, 3 * TILE - 1):
        batch.logits[...] = -3
        batch.logits[0, first:] = 2
        assert batch.choose()[0] == first


def test_ties_at_the_kth_are_all_kept(decoding: Any) -> None:
    batch = decoding(400, 6)
    batch.logits[...] = [3, 1, 2, 2, 2, 0]
    batch.rows["temperature"], batch.rows["seed"] = 1e30, np.arange(400)
    for top_k, kept in [(1, {0}), (2, {0, 2, 3, 4}), (4, {0, 2, 3, 4}), (5, {0, 1, 2, 3, 4}), (6, {0, 1, 2, 3, 4, 5})]:
        batch.rows["top_k"] = top_k
        assert set(batch.choose().tolist()) == kept


def test_rows_in_another_state_are_left_alone(decoding: Any) -> None:
    random = np.random.default_rng(3)
    batch = decoding(4, 500)
    batch.logits[...] = random.normal(size=batch.logits.shape)
    batch.rows["temperature"] = [0, 1, 0, 1]
    batch.rows["state"] = [State.RUNNING, State.PREFILLED, State.PARKED, State.RUNNING]
    batch.chosen[...] = -7
    before = batch.rows.copy()
    chosen = batch.choose(State.RUNNING).copy()
    assert chosen.tolist() == [expected(batch, 0), -7, -7, expected(batch, 3)]
    assert batch.choose(State.PREFILLED).tolist() == [chosen[0], expected(batch, 1), -7, chosen[3]]
    assert (batch.rows == before).all()


def test_what_a_row_gets_does_not_depend_on_its_neighbours(decoding: Any) -> None:
    random = np.random.default_rng(9)
    logits = random.normal(size=(3, 5000)).astype(np.float32)
    together = decoding(3, 5000)
    together.logits[...] = logits
    together.rows["temperature"], together.rows["top_k"], together.rows["seed"] = 1, 50, [4, 5, 6]
    alone = []
    for row in range(3):
        batch = decoding(1, 5000)
        batch.logits[0], batch.rows[0] = logits[row], together.rows[row]
        alone.append(int(batch.choose()[0]))
    assert together.choose().tolist() == alone
