"""Shapes of plans follow from the model's dimensions, of any size, and hold what the engine's stages ask for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni2_bench.random_checkpoint import PRESETS
from omni2_engine.errors import SettingError
from omni2_engine.model.config import ModelConfig, TokenConfig
from omni2_engine.stages.flow import WORKING_BLOCKS
from omni2_engine.stages.pipeline import Pipeline
from omni2_export.tensorrt.shapes import Range, Sizes, Space, cache_length, plan_spaces


def model(size: str = "tiny", **changes: Any) -> ModelConfig:
    tokens = TokenConfig(eos=(), repetition_penalty=1.0, speech=0, sep=0, speech_eos=0)
    return PRESETS[size].changed(**changes).model_config(tokens)


@given(
    read=st.integers(1, 12),
    write=st.integers(1, 100),
    sessions=st.integers(1, 64),
    context=st.integers(1, 40_000),
    seconds=st.floats(0, 200),
)
def test_every_range_is_one(read: int, write: int, sessions: int, context: int, seconds: float) -> None:
    config = model(read=read, write=write)
    for space in plan_spaces(config, Sizes(sessions, context, left_context=seconds)).values():
        for least, usual, most in space.ranges.values():
            assert 0 <= least <= usual <= most
        if "T" in space.ranges:
            assert space.ranges["T"].most == space.capacities["capacity"]


@given(read=st.integers(1, 12), write=st.integers(1, 100), tokens=st.integers(1, 999), last=st.integers(1, 3000))
def test_the_speech_lm_holds_a_whole_turn(read: int, write: int, tokens: int, last: int) -> None:
    config = model(read=read, write=write)
    pipeline = Pipeline(config, *[None] * 8)  # type: ignore[arg-type]  # it only counts here
    sizes = Sizes(new_tokens=tokens, last_write=last)
    assert sizes.speech_positions(config) == pipeline.speech_positions(tokens, last)
    spaces = plan_spaces(config, sizes)
    assert spaces["speech_lm"].capacities["capacity"] > pipeline.speech_positions(tokens, last)  # one is spare
    assert spaces["flow_encoder"].capacities["capacity"] >= pipeline.speech_positions(tokens, last)


def test_decoding_has_the_usual_shape() -> None:
    ranges = plan_spaces(model(), Sizes(sessions=5))["llm"].ranges
    assert ranges["B"] == (1, 5, 5) and ranges["S"].usual == 1 and ranges["S"].most == 512


def test_a_cache_has_a_spare_position() -> None:
    assert [cache_length(n) for n in (1, 63, 64, 4096)] == [64, 64, 128, 4160]


def test_the_context_is_no_longer_than_the_model_was_made_for() -> None:
    config = model(llm={"max_positions": 300})
    assert plan_spaces(config, Sizes(context=4096))["llm"].capacities["capacity"] == cache_length(300)


def test_the_solver_keeps_what_the_stage_keeps() -> None:
    """`Flow` keeps ⌈seconds / block⌉ − 1 finished blocks beside those at work."""
    config = model()
    block = config.flow_encoder.block_frames
    for seconds, blocks in ((30.0, 14), (0.0, 0), (2.1, 1)):
        assert Sizes(left_context=seconds).solver_frames(config) >= (blocks + WORKING_BLOCKS) * block


def test_a_profile_is_spelled_out_per_input() -> None:
    space = Space({"capacity": 64}, {"B": Range(1, 4, 8), "S": Range(1, 1, 512)})
    profile = space.profile({"embeds": ("B", "S", 896), "write": ("B",), "table": (3, 4)})
    assert profile["embeds"] == ((1, 1, 896), (4, 1, 896), (8, 512, 896))
    assert profile["write"] == ((1,), (4,), (8,)) and profile["table"] == ((3, 4),) * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("sessions", 0), ("sessions", 257), ("context", 0), ("new_tokens", 0), ("last_write", 0)],
)
def test_sizes_that_make_no_sense(name: str, value: int) -> None:
    with pytest.raises(SettingError, match=name):
        Sizes(**{name: value})


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_left_context_that_makes_no_sense(seconds: float) -> None:
    with pytest.raises(SettingError, match="left_context"):
        Sizes(left_context=seconds)
