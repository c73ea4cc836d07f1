"""The shapes a plan accepts: one wide optimization profile, written down per symbolic dimension of its graph.

TensorRT wants every cache's length fixed, so those become numbers; the other dimensions get a range, whose `usual`
value is the one kernels are chosen for. A decoding step always has its usual shape: one position of every session.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from omni2_engine.backends.tensorrt.prefill import padded_positions
from omni2_engine.engine import MAX_CONTEXT, MOST_SESSIONS
from omni2_engine.errors import SettingError
from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES, EncoderConfig, ModelConfig
from omni2_engine.model.manifest import PREFILL_SUFFIX
from omni2_engine.settings.tuning import TURN
from omni2_engine.stages.encoder_tail import ENCODER_TAIL
from omni2_engine.stages.flow import LEFT_CONTEXT, WORKING_BLOCKS
from omni2_engine.turn.options import LAST_WRITE, MAX_NEW_TOKENS

GRANULE = 64  # the length of a cache is a multiple of this number of positions
USUAL_SPEECH = 300  # positions that the encoder computes for a question of five seconds
PREFILL = 512  # positions of one call; a longer prompt takes several

Shape = tuple[int, ...]
Profile = dict[str, tuple[Shape, Shape, Shape]]  # input → least, usual and most shape


class Range(NamedTuple):
    """Values a dimension may have."""

    least: int
    usual: int
    most: int

    def times(self, factor: int) -> Range:
        """All of them multiplied."""
        return Range(*(factor * value for value in self))

    def plus(self, more: int) -> Range:
        """Larger by this amount, the least excepted."""
        return Range(self.least, self.usual + more, self.most + more)


@dataclass(frozen=True)
class Space:
    """All shapes of one plan.

    Args:
        capacities: symbolic dimensions that become a number: lengths of caches, and sessions where one is served.
        ranges: what the other symbolic dimensions may be.
    """

    capacities: Mapping[str, int] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    def profile(self, inputs: Mapping[str, Iterable[int | str]]) -> Profile:
        """The optimization profile of a graph with these inputs, whose dimensions are numbers or have a range."""

        def shape(dimensions: Iterable[int | str], which: int) -> Shape:
            return tuple(size if isinstance(size, int) else self.ranges[size][which] for size in dimensions)

        return {name: (shape(sizes, 0), shape(sizes, 1), shape(sizes, 2)) for name, sizes in inputs.items()}


@dataclass(frozen=True)
class Sizes:
    """What plans are built to hold.

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
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "use some hundreds")
        if not 0 <= self.left_context < float("inf"):
            raise SettingError(f"left_context is {self.left_context}", "use 0 or more seconds")

    def speech_positions(self, c: ModelConfig) -> int:
        """Positions the speech LM's context can grow to in one turn."""
        return self.new_tokens + -(-self.new_tokens // c.read) * c.write + 1 + self.last_write

    def positions(self, c: ModelConfig) -> int:
        """Positions of a conversation: no more than the language model was made for."""
        return min(self.context, c.llm.max_positions)

    def rotary_positions(self, c: ModelConfig) -> int:
        """Rows of the rotary tables: as many positions as either cache has."""
        return cache_length(max(self.positions(c), self.speech_positions(c)))

    def units(self, c: ModelConfig) -> Range:
        """Units of a flow call: those of the block at work, the look-ahead, and the new ones."""
        flow = c.flow_encoder
        chunk = max(c.write, flow.lookahead + -(-VOCODER_OVERLAP_FRAMES // flow.ratio) + 1)
        return Range(1, flow.block_units // 2 + chunk, flow.block_units + flow.lookahead + 2 * TURN.growth[-1] * chunk)

    def solver_frames(self, c: ModelConfig) -> int:
        """Mel frames that the solver's caches hold: whole blocks, those at work among them."""
        flow = c.flow_encoder
        kept = max(math.ceil(self.left_context * flow.unit_rate / flow.block_units) - 1, 0)
        at_work = max(WORKING_BLOCKS, math.ceil(self.units(c).most / flow.block_units))
        return (kept + at_work) * flow.block_frames


def cache_length(positions: int) -> int:
    """Length of a cache for these positions and a spare one, which slots that take no part are written to."""
    return -(-(positions + 1) // GRANULE) * GRANULE


def plan_spaces(c: ModelConfig, sizes: Sizes) -> dict[str, Space]:
    """The shapes of every plan that a preset may ask for, in the order they are built."""
    units, ratio = sizes.units(c), c.flow_encoder.ratio
    frames = units.times(ratio)
    seen = cache_length(max(sizes.speech_positions(c), units.most))
    seen_units, solver = _up_to(seen), sizes.solver_frames(c)
    overlap = c.vocoder.overlap
    cached = Range(0, overlap, overlap)
    new = Range(1, c.write * ratio, frames.most).plus(VOCODER_OVERLAP_FRAMES)
    return {
        "log_mel": Space(),
        "encoder": Space(),
        ENCODER_TAIL: _encoder_tail(c.encoder),
        "llm": _language_model(sizes.positions(c), sizes.sessions),
        f"llm{PREFILL_SUFFIX}": _prefill(sizes.positions(c), sizes.sessions, c),
        "fusion": Space({}, {"n": Range(1, c.read, c.read * sizes.sessions)}),
        "speech_lm": _language_model(sizes.speech_positions(c), sizes.sessions),
        "flow_encoder": Space(
            {"capacity": seen, "up_capacity": ratio * seen},
            {"n": units, "N": seen_units, "m": frames, "M": seen_units.times(ratio)},
        ),
        "flow_conditions": Space({}, {"k": Range(1, c.estimator.steps, c.estimator.steps)}),
        "flow_step": Space({"capacity": solver}, {"t": frames, "T": _up_to(solver)}),
        "first_flow_encoder": Space({}, {"n": units, "m": frames}),
        "first_flow_step": Space({}, {"t": frames}),
        "vocoder": Space({"B": 1}, {"F": new, "samples": new.times(c.vocoder.hop), "cached": cached}),
    }


def _encoder_tail(c: EncoderConfig) -> Space:
    """From a single vector's positions to the whole window, and what that leaves to read, at least a position."""
    whole = c.positions * c.stack
    computed = (c.stack, min(USUAL_SPEECH // c.stack * c.stack, whole), whole)
    kept = (max(c.context - n, 1) for n in reversed(computed))
    return Space({}, {"frames": Range(*(2 * n + 2 for n in computed)), "kept": Range(*kept)})


def _language_model(positions: int, sessions: int) -> Space:
    capacity = cache_length(positions)
    ranges = {"B": Range(1, sessions, sessions), "S": Range(1, 1, min(PREFILL, capacity)), "T": _up_to(capacity)}
    return Space({"capacity": capacity}, ranges)


def _prefill(positions: int, sessions: int, c: ModelConfig) -> Space:
    """Of a plan that prefills one session at a time, mostly a spoken question."""
    capacity = cache_length(positions)
    most = min(PREFILL, capacity)
    usual = min(padded_positions(c.encoder.positions), most)
    return Space(
        {"capacity": capacity}, {"B": Range(1, 1, sessions), "S": Range(1, usual, most), "T": _up_to(capacity)}
    )


def _up_to(capacity: int) -> Range:
    """Positions of a cache that a call looks at: any number, mostly a quarter of it."""
    return Range(1, capacity // 4, capacity)
