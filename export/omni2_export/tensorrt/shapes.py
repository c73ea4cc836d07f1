"""The shapes a plan accepts: one wide optimization profile, written down per symbolic dimension of its graph.

TensorRT wants every cache's length fixed, so those become numbers; the other dimensions get a range, whose `usual`
value is the one kernels are chosen for. A decoding step is always of its usual shape: one position of every session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from omni2_engine.config import VOCODER_OVERLAP_FRAMES, ModelConfig
from omni2_engine.engine import MAX_CONTEXT
from omni2_engine.errors import SettingError
from omni2_engine.options import LAST_WRITE, MAX_NEW_TOKENS
from omni2_engine.scheduling.chunking import GROWTH
from omni2_engine.stages.flow import LEFT_CONTEXT, WORKING_BLOCKS

GRANULE = 64  # caches are a multiple of so many positions long
PREFILL = 512  # positions of one prefill call; a longer prompt takes several
MOST_SESSIONS = 256

Shape = tuple[int, ...]
Profile = dict[str, tuple[Shape, Shape, Shape]]  # input → least, usual and most shape


class Range(NamedTuple):
    """Values a dimension may have."""

    least: int
    usual: int
    most: int


@dataclass(frozen=True)
class Sizes:
    """What a plan is built to hold.

    Args:
        sessions: conversations decoded in one call.
        context: positions of a conversation.
        new_tokens: text tokens of a turn.
        last_write: speech tokens of a turn's final write.
        left_context: seconds of its own sound the flow looks back on.
    """

    sessions: int = 8
    context: int = MAX_CONTEXT
    new_tokens: int = MAX_NEW_TOKENS
    last_write: int = LAST_WRITE
    left_context: float = LEFT_CONTEXT

    def __post_init__(self) -> None:
        if not 1 <= self.sessions <= MOST_SESSIONS:
            raise SettingError(f"sessions is {self.sessions}", f"use an integer from 1 to {MOST_SESSIONS}")
        for name in ("context", "new_tokens", "last_write"):
            if getattr(self, name) < 2:
                raise SettingError(f"{name} is {getattr(self, name)}", "use some hundreds")
        if not 0 <= self.left_context < 3600:
            raise SettingError(f"left_context is {self.left_context}", "use 0 or more seconds")

    def speech_positions(self, config: ModelConfig) -> int:
        """Positions the speech LM's context can grow to in one turn."""
        rounds = -(-self.new_tokens // config.read)
        return self.new_tokens + rounds * config.write + 1 + self.last_write

    def units_per_call(self, config: ModelConfig) -> Range:
        """Units of a flow call: those of the block at work, the look-ahead, and the new ones."""
        c = config.flow_encoder
        chunk = max(config.write, c.lookahead + -(-VOCODER_OVERLAP_FRAMES // c.ratio) + 1)
        return Range(1, c.block_units // 2 + chunk, c.block_units + c.lookahead + 2 * GROWTH[-1] * chunk)

    def flow_frames(self, config: ModelConfig) -> int:
        """Mel frames that the solver's caches hold."""
        c = config.flow_encoder
        blocks = -(-int(self.left_context * c.unit_rate) // c.block_units) + WORKING_BLOCKS
        return blocks * c.block_frames


def whole(positions: int) -> int:
    """Length of a cache for so many positions and a spare one, which slots that take no part write to."""
    return -(-(positions + 1) // GRANULE) * GRANULE


def make_profile(inputs: Mapping[str, Iterable[int | str]], ranges: Mapping[str, Range]) -> Profile:
    """The optimization profile of a graph.

    Args:
        inputs: shape per input; dimensions that are names have a range.
        ranges: of every such name.
    """

    def shape(dimensions: Iterable[int | str], which: int) -> Shape:
        return tuple(size if isinstance(size, int) else ranges[size][which] for size in dimensions)

    profile: Profile = {}
    for name, dimensions in inputs.items():
        dimensions = tuple(dimensions)
        profile[name] = (shape(dimensions, 0), shape(dimensions, 1), shape(dimensions, 2))
    return profile
