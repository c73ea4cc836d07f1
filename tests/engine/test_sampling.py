"""Choosing a token: penalty and greedy rules of spec §6, draws against a plain numpy model of their distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from omni2_engine import _core
from omni2_engine.errors import BackendError, SettingError
from omni2_engine.sampling import DrawKey, Sampling, Stream, choose, normal

Logits = NDArray[np.float32]

KEY = DrawKey(seed=11, stream=Stream.SPEECH, turn=0)
NO_IDS = np.empty(0, np.int64)
GREEDY = Sampling(temperature=0)
INF = math.inf
NAN = math.nan

any_logits = hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-50, 50, width=32))
special_logits = hnp.arrays(
    np.float32,
    st.integers(1, 100),
    elements=st.one_of(st.floats(-9, 9, width=16), st.sampled_from([-INF, INF, NAN, 0.0, -0.0, 1.0])),
)
samplings = st.builds(
    Sampling,
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 320),
    top_p=st.floats(0.01, 1),
    repetition_penalty=st.floats(0.5, 2),
)


def logits(*values: float) -> Logits:
    return np.array(values, np.float32)


def random_logits(size: int, seed: int = 0, scale: float = 2.0) -> Logits:
    return (np.random.default_rng(seed).normal(size=size) * scale).astype(np.float32)


def penalised(values: Logits, generated: NDArray[np.int64], penalty: float) -> Logits:
    """Spec §6: every id already generated once, logit < 0 ? logit·p : logit / p."""
    factor = np.float32(penalty)
    ids = np.unique(generated)
    result: Logits = values.copy()
    result[ids] = np.where(values[ids] < 0, values[ids] * factor, values[ids] / factor)
    return result


def kept_probabilities(values: Logits, sampling: Sampling) -> NDArray[np.float64]:
    """The distribution a draw must follow: softmax, top-k with ties, then the nucleus by a full sort."""
    scores = np.where(np.isnan(values), -INF, values).astype(np.float64)
    if 0 < sampling.top_k < scores.size:
        scores[scores < np.sort(scores)[-sampling.top_k]] = -INF
    p: NDArray[np.float64] = np.exp((scores - scores.max()) / sampling.temperature)
    p /= p.sum()
    if sampling.top_p < 1:
        order = np.argsort(-scores, kind="stable")
        before = np.cumsum(p[order]) - p[order]
        p[order[before >= sampling.top_p]] = 0
        p /= p.sum()
    return p


def draws(values: Logits, sampling: Sampling, count: int, generated: NDArray[np.int64] = NO_IDS) -> NDArray[np.int64]:
    return np.array([choose(values, sampling, KEY, step, generated) for step in range(count)])


def assert_follows(drawn: NDArray[np.int64], p: NDArray[np.float64]) -> None:
    """Chi-square with rare tokens pooled; the bound is 5 standard deviations of the statistic."""
    counts = np.bincount(drawn, minlength=p.size).astype(np.float64)
    assert counts[p == 0].sum() == 0
    expected = p * drawn.size
    common = expected >= 10
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    freedom = observed.size - 1
    assert statistic < freedom + 5 * math.sqrt(2 * freedom) + 5


@given(any_logits)
def test_greedy_is_numpys_argmax(values: Logits) -> None:
    assert _core.greedy(values, NO_IDS, 1.0) == int(values.argmax())


@given(special_logits)
def test_greedy_with_special_values(values: Logits) -> None:
    if np.isnan(values).all():
        with pytest.raises(_core.NoCandidateError):
            _core.greedy(values, NO_IDS, 1.0)
    else:
        # nanargmax takes a NaN for the greatest where all others are minus infinity
        assert _core.greedy(values, NO_IDS, 1.0) == int(np.flatnonzero(values == np.nanmax(values))[0])


@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 33, 1000, 151_936])
def test_greedy_takes_the_first_of_equals_wherever_it_stands(size: int) -> None:
    values = np.full(size, -3, np.float32)
    for first in {0, size // 2, size - 1}:
        values[first] = 2
        values[first + 1 :: 7] = 2
        assert _core.greedy(values, NO_IDS, 1.0) == first
        values[:] = -3


@given(any_logits, st.data(), st.floats(0.5, 2))
def test_greedy_is_argmax_of_penalised_logits(values: Logits, data: st.DataObject, penalty: float) -> None:
    ids = np.array(data.draw(st.lists(st.integers(0, values.size - 1), max_size=40)), np.int64)
    before = values.copy()
    assert _core.greedy(values, ids, penalty) == int(penalised(values, ids, penalty).argmax())
    assert np.array_equal(values, before)


def test_penalty_lowers_negative_logits_and_counts_an_id_once() -> None:
    assert _core.greedy(logits(-1.0, -1.5), np.array([0]), 2.0) == 1
    assert _core.greedy(logits(4.0, 1.5), np.array([0, 0, 0]), 2.0) == 0  # once: 2; thrice: 0.5
    assert choose(logits(4.0, 3.0), Sampling(temperature=0, repetition_penalty=1.5), KEY, 0, [0]) == 1


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(top_k=50),
        Sampling(top_k=1),
        Sampling(temperature=0.5, top_k=20),
        Sampling(temperature=2.0, top_p=0.8),
        Sampling(temperature=1.3, top_k=30, top_p=0.6),
        Sampling(top_p=1e-9),
    ],
)
def test_draws_follow_the_distribution(sampling: Sampling) -> None:
    values = random_logits(403)
    assert_follows(draws(values, sampling, 20_000), kept_probabilities(values, sampling))


def test_penalty_comes_before_the_draw() -> None:
    values = random_logits(60)
    ids = np.argsort(values)[::-1][:5].astype(np.int64)
    sampling = Sampling(top_k=10, top_p=0.9, repetition_penalty=1.7)
    assert_follows(draws(values, sampling, 20_000, ids), kept_probabilities(penalised(values, ids, 1.7), sampling))


def test_flat_distribution_over_many_tokens_has_no_preference() -> None:
    size, count = 1000, 30_000
    drawn = draws(np.zeros(size, np.float32), Sampling(), count)
    assert_follows(drawn, np.full(size, 1 / size))


def test_ties_at_the_kth_are_all_kept() -> None:
    values = logits(3, 1, 2, 2, 2, 0)
    assert set(draws(values, Sampling(top_k=2), 500)) == {0, 2, 3, 4}
    assert set(draws(values, Sampling(top_k=4), 500)) == {0, 2, 3, 4}
    assert set(draws(values, Sampling(top_k=5), 500)) == {0, 1, 2, 3, 4}


def test_equal_tokens_enter_the_nucleus_by_id() -> None:
    assert set(draws(logits(1, 1, 1, 1), Sampling(top_p=0.5), 200)) == {0, 1}
    assert set(draws(logits(1, 1, 1, 1), Sampling(top_p=0.51), 200)) == {0, 1, 2}


@settings(max_examples=300)
@given(any_logits, samplings, st.integers(0, 2**32 - 1))
def test_a_draw_is_always_one_of_the_kept(values: Logits, sampling: Sampling, step: int) -> None:
    token = choose(values, sampling, KEY, step, NO_IDS)
    likelier = values > values[token]
    if 0 < sampling.top_k < values.size:
        assert likelier.sum() < sampling.top_k
    p = kept_probabilities(values, Sampling(sampling.temperature, sampling.top_k))
    assert p[likelier].sum() < sampling.top_p + 1e-6


@given(special_logits, samplings, st.integers(0, 1000))
def test_nan_and_minus_infinity_are_never_drawn(values: Logits, sampling: Sampling, step: int) -> None:
    if (values > -INF).any():
        assert values[choose(values, sampling, KEY, step, NO_IDS)] > -INF
    else:
        with pytest.raises(BackendError, match="no usable number"):
            choose(values, sampling, KEY, step, NO_IDS)


def test_the_only_finite_logit_is_drawn_and_infinity_wins() -> None:
    assert set(draws(logits(-INF, NAN, -1e30, -INF), Sampling(top_k=3, top_p=0.9), 50)) == {2}
    assert set(draws(logits(5, INF, 7, INF), Sampling(), 100)) == {1, 3}
    assert set(draws(logits(3e38, -3e38), Sampling(temperature=1e-30), 20)) == {0}


@pytest.mark.parametrize(("top_k", "top_p"), [(50, 1.0), (50, 0.9), (0, 0.95), (0, 1.0)])
def test_a_large_vocabulary(top_k: int, top_p: float) -> None:
    """160k tokens in ascending order, the worst for a running threshold, then shuffled: only kept ids come out."""
    sampling = Sampling(top_k=top_k, top_p=top_p)
    ordered = np.sort(random_logits(160_000, seed=3))
    for values in (ordered, np.random.default_rng(4).permutation(ordered)):
        p = kept_probabilities(values, sampling)
        assert all(p[token] > 0 for token in draws(values, sampling, 20))


@given(any_logits, samplings, st.integers(0, 2**32 - 1))
def test_the_same_key_draws_the_same_token(values: Logits, sampling: Sampling, step: int) -> None:
    again = values.copy()
    assert choose(values, sampling, KEY, step, NO_IDS) == choose(again, sampling, KEY, step, NO_IDS)


def test_draws_depend_on_every_part_of_the_key() -> None:
    values = np.zeros(1000, np.float32)
    keys = [KEY, DrawKey(12, KEY.stream, 0), DrawKey(11, Stream.TEXT, 0), DrawKey(11, KEY.stream, 1)]
    runs = {tuple(choose(values, Sampling(), key, step, NO_IDS) for step in range(8)) for key in keys}
    assert len(runs) == len(keys)


def test_draws_are_frozen() -> None:
    """Stored answers stay reproducible: these ids may never change."""
    values = 2 * normal((500,), KEY, 0)
    assert draws(values, Sampling(top_k=50), 8).tolist() == [383, 383, 343, 415, 389, 19, 314, 340]


def test_temperature_zero_is_greedy_and_low_temperature_approaches_it() -> None:
    values = random_logits(300)
    assert set(draws(values, GREEDY, 5)) == {int(values.argmax())}
    assert set(draws(values, Sampling(temperature=1e-4), 50)) == {int(values.argmax())}


@pytest.mark.parametrize(
    "settings_of",
    [
        {"temperature": -0.1},
        {"temperature": NAN},
        {"temperature": INF},
        {"top_k": -1},
        {"top_k": 2**32},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"top_p": NAN},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": NAN},
    ],
)
def test_senseless_settings_are_refused(settings_of: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="—"):
        Sampling(**settings_of)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(5), "C-contiguous float32 vector"),
        (np.zeros((1, 5), np.float32), "C-contiguous float32 vector"),
        (np.zeros(10, np.float32)[::2], "C-contiguous float32 vector"),
        (np.zeros(0, np.float32), "must not be empty"),
    ],
)
def test_unusable_logits_are_refused(values: Logits, words: str) -> None:
    for sampling in (GREEDY, Sampling()):
        with pytest.raises(ValueError, match=words):
            choose(values, sampling, KEY, 0, NO_IDS)


@pytest.mark.parametrize("token", [-1, 3, 2**40])
@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_generated_ids_outside_the_vocabulary_are_named(token: int, penalty: float) -> None:
    with pytest.raises(ValueError, match=f"generated id {token} is outside the vocabulary of 3 tokens"):
        _core.greedy(logits(1, 2, 3), np.array([0, token]), penalty)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0.0, 1.0, 0, 1.0), "penalty"),
        ((NAN, 1.0, 0, 1.0), "penalty"),
        ((1.0, -1.0, 0, 1.0), "temperature"),
        ((1.0, NAN, 0, 1.0), "temperature"),
        ((1.0, 1.0, -1, 1.0), "top_k"),
        ((1.0, 1.0, 0, 0.0), "top_p"),
    ],
)
def test_the_extension_checks_its_settings(numbers: tuple[float, float, int, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _core.sample(logits(1, 2), NO_IDS, *numbers, 0, 0, 0, 0)
