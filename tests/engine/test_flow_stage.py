"""Incremental flow matching against the full recomputation, on schedules of every kind (spec §11)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine import Engine
from omni2_engine.stages.flow import Flow, FlowState
from omni2_engine.stages.flow_window import EMPTY, BlockWindow

TOLERANCE = 1e-5  # of the mel's standard deviation: reassociated float32 sums, nothing else


@pytest.fixture(scope="module")
def flow(tiny_engine_dir: Path) -> Flow:
    return Engine.load(tiny_engine_dir, threads=1, warm_up=False).pipeline.decoder.flow


def new_state(flow: Flow) -> FlowState:
    embedding = np.linspace(-1, 1, flow.config.speaker, dtype=np.float32)
    return flow.new_state(flow.speaker_features(embedding))


def some_units(flow: Flow, count: int, seed: int) -> list[int]:
    return [int(unit) for unit in np.random.default_rng(seed).integers(0, flow.units_config.units, count)]


def full(flow: Flow, units: list[int], final: bool) -> np.ndarray:
    """Everything said so far, from nothing: what upstream does at every chunk."""
    return flow.step(new_state(flow), units, final).mel


def close(actual: np.ndarray, expected: np.ndarray) -> bool:
    worst = np.abs(actual - expected).max(initial=0) if actual.shape == expected.shape else np.inf
    return bool(worst <= TOLERANCE * max(expected.std(), 1)) if expected.size else actual.size == 0


@pytest.mark.parametrize("around", [1, 2])
def test_block_edges(flow: Flow, around: int) -> None:
    """One unit more or less at the edge of a block decides whether the block is final."""
    edge = around * flow.units_config.block_units
    units = some_units(flow, edge + 30, seed=around)
    for count in range(edge - 1, edge + 5):
        state = new_state(flow)
        flow.step(state, units[:count], final=False)
        second = flow.step(state, units[count : count + 11], final=False)
        expected = full(flow, units[: count + 11], final=False)
        assert close(second.mel, expected[second.start :]), count
        last = flow.step(state, [], final=True)
        assert close(last.mel, full(flow, units[: count + 11], final=True)[last.start :]), count


@settings(max_examples=12, deadline=None)
@given(schedule=st.lists(st.integers(1, 45), min_size=1, max_size=6), last=st.integers(0, 30), seed=st.integers(0, 99))
def test_any_schedule_equals_the_full_recomputation(flow: Flow, schedule: list[int], last: int, seed: int) -> None:
    units = some_units(flow, sum(schedule) + last, seed)
    state, position, frames = new_state(flow), 0, 0
    for count, final in [*((count, False) for count in schedule), (last, True)]:
        output = flow.step(state, units[position : position + count], final)
        position += count
        frames += output.new
        expected = full(flow, units[:position], final)
        assert close(output.mel, expected[output.start :])
        assert output.start + len(output.mel) == len(expected) or not len(output.mel)
    assert frames == flow.units_config.ratio * len(units)  # every frame is given out once


def test_work_per_call_is_bounded(flow: Flow) -> None:
    c = flow.units_config
    state = new_state(flow)
    hop, units = 10, some_units(flow, 8 * c.block_units, 0)
    sizes = [len(flow.step(state, units[i : i + hop], False).mel) for i in range(0, len(units), hop)]
    assert max(sizes) <= c.block_frames + c.ratio * (hop + c.lookahead)


def test_limited_left_context_bounds_memory_and_stays_close(flow: Flow, tiny_engine_dir: Path) -> None:
    limited = Engine.load(tiny_engine_dir, threads=1, warm_up=False, left_context=4.0).pipeline.decoder.flow
    block = flow.units_config.block_units
    units = some_units(flow, 8 * block, 1)
    states = {"whole": new_state(flow), "limited": new_state(limited)}
    outputs = {name: [] for name in states}
    sizes = []
    for start in range(0, len(units), 25):
        for name, stage in (("whole", flow), ("limited", limited)):
            outputs[name].append(stage.step(states[name], units[start : start + 25], False).new_mel)
        sizes.append(sum(cache.nbytes for cache in states["limited"].steps[0].caches.values()))
    whole, cut = (np.concatenate(outputs[name]) for name in ("whole", "limited"))
    seen = 2 * flow.units_config.block_frames  # four seconds
    assert close(cut[:seen], whole[:seen])  # nothing was dropped yet
    assert np.isfinite(cut).all() and np.corrcoef(cut.ravel(), whole.ravel())[0, 1] > 0.9
    assert not close(cut, whole)
    assert sizes[-1] == sizes[len(sizes) // 2]
    assert sum(cache.nbytes for cache in states["whole"].steps[0].caches.values()) > sizes[-1]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.integers(0, 4), st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_window_against_a_plain_model(block: int, kept: int, steps: list[int]) -> None:
    """Frames are written into a plain array; what the mask shows must be exactly the frames that should be seen."""
    window = BlockWindow(block, kept)
    memory: list[int] = []
    finished = stop = most = 0
    for count in steps:
        stop += count
        start = finished * block
        place = window.allocate(start, stop)
        most = max(most, -(-(stop - start) // block))
        memory += [EMPTY] * (window.capacity - len(memory))
        memory[place : place + stop - start] = range(start, stop)
        mask = window.mask()[0, 0]
        assert mask.shape == (stop - start, window.used) and window.used <= window.capacity
        for row, frame in zip(mask, range(start, stop), strict=True):
            seen = sorted(memory[index] for index in np.flatnonzero(row))
            end = min((frame // block + 1) * block, stop)
            assert seen == list(range(max(finished - kept, 0) * block, end))
        finished = (stop - 1) // block if count % 2 else finished + (stop // block - finished) // 2
    assert window.capacity <= 2 * (kept + most) * block  # however long the answer
