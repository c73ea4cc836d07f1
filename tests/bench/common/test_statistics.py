"""Figures out of times, on cases whose answer is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni2_bench.common.statistics import Blocks, chunk_costs, continuity, fit, starvation, summarise
from omni2_engine.errors import SettingError

RELEASED = Blocks(hop=10, units=50)
chunks = st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 5)), min_size=1, max_size=30)


@given(chunks)
def test_playing_takes_the_sound_and_the_waiting(parts: list[tuple[float, float]]) -> None:
    ready = [sum(wait for wait, _ in parts[: k + 1]) for k in range(len(parts))]
    durations = [seconds for _, seconds in parts]
    gaps = starvation(ready, durations)
    assert 0 <= gaps.worst <= gaps.total
    end = ready[0]
    for time, seconds in zip(ready, durations, strict=True):
        end = max(end, time) + seconds
    assert end == pytest.approx(ready[0] + sum(durations) + gaps.total)


def test_starvation() -> None:
    assert starvation([3.0, 3.2, 4.0], [0.1, 0.4, 1.0]).total == pytest.approx(0.1 + 0.4)
    assert starvation([3.0, 3.2, 4.0], [0.1, 0.4, 1.0]).worst == pytest.approx(0.4)
    assert starvation([3.0, 3.0], [0.1, 0.4]).total == 0
    assert starvation([], []).total == 0
    assert continuity([0.0, 0.05, 0.2, 3.0]) == 0.5


def test_costs_begin_with_the_prefill() -> None:
    assert chunk_costs([3.0, 3.5, 4.5], 2.0) == [1.0, 0.5, 1.0]


@given(st.floats(0.1, 5), st.floats(0, 0.5), st.integers(15, 60))
def test_a_line_is_found(start: float, slope: float, count: int) -> None:
    line = fit([start + slope * k for k in range(count)], RELEASED)
    assert line.slope == pytest.approx(slope, abs=1e-9)
    assert line.first == pytest.approx(start + slope * 7)  # the middle of the second block
    grown = (line.last - line.first) / ((line.last + line.first) / 2)
    if abs(grown - 0.1) > 1e-6:
        assert line.verdict == ("constant" if grown < 0.1 else "growing")


@given(st.lists(st.floats(0.5, 2), min_size=5, max_size=5), st.integers(3, 8))
def test_a_cost_with_the_blocks_period_is_constant(period: list[float], blocks: int) -> None:
    costs = period * blocks
    assert fit(costs, RELEASED).verdict == "constant"
    assert RELEASED.growth(costs) == pytest.approx(1)


def test_growth_compares_the_last_whole_block_with_the_second() -> None:
    costs = [9.0] * 5 + [1.0] * 5 + [5.0] * 5 + [2.0] * 5 + [7.0] * 3
    assert RELEASED.growth(costs) == 2.0
    assert RELEASED.fewest_chunks() == 15 and Blocks(hop=8, units=50).fewest_chunks() == 19
    with pytest.raises(SettingError, match="14 chunks fill 2 blocks"):
        RELEASED.growth(costs[:14])


def test_blocks_of_another_hop() -> None:
    blocks = Blocks(hop=30, units=50)
    assert [blocks.of(k) for k in range(5)] == [0, 1, 1, 2, 2]
    assert blocks.means([1.0, 2.0, 4.0, 5.0, 5.0]) == [1.0, 3.0, 5.0]


def test_summary() -> None:
    summary = summarise([3.0, 1.0, 2.0])
    assert (summary.median, summary.p10, summary.p90) == (2.0, pytest.approx(1.2), pytest.approx(2.8))
