"""How a token is chosen from logits and how noise is drawn: settings and keys in, an id or an array out.

Every draw is named by who draws (seed, stream) and when (turn, step), never by what was drawn before: one seed gives
one answer on any schedule, batch or thread count. The arithmetic is that of cuda/draw.cuh in the kernels
and cpp/sampling.h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from omni2_engine import _core
from omni2_engine.errors import BackendError, SettingError

SEED_LIMIT = 2**64
Choose = Callable[[NDArray[np.float32], list[int]], int]  # (logits (vocab,), ids generated so far) → id


class Stream(IntEnum):
    """Who draws. Two streams of one seed never share a number."""

    TEXT = 0
    SPEECH = 1
    VOCODER_PHASE = 2
    VOCODER_NOISE = 3
    FLOW_NOISE = 4


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one model's tokens are chosen (spec §6); the defaults are plain sampling from the softmax.

    Args:
        temperature: divides the logits, 0 or above; 0 is greedy.
        top_k: keep the logits not below the k-th greatest, ties included; 0 keeps all.
        top_p: of those keep the fewest, likeliest first, that hold this share, in (0, 1]; 1 keeps all.
        repetition_penalty: above 0; the logit of every id already generated is divided by it, multiplied if negative.

    Raises:
        SettingError: a value outside its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SettingError(f"temperature is {self.temperature}", "use 0 (greedy) or a positive number")
        if not 0 <= self.top_k < 2**32:
            raise SettingError(f"top-k is {self.top_k}", "use 0 (keep all) or the number of tokens to keep")
        if not 0 < self.top_p <= 1:
            raise SettingError(f"top-p is {self.top_p}", "use a share above 0 and up to 1 (keep all)")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise SettingError(f"repetition penalty is {self.repetition_penalty}", "use a positive number, 1 for none")


@dataclass(frozen=True, slots=True)
class DrawKey:
    """Who draws, and in which turn of the conversation; a step below 2^32 completes it.

    Raises:
        SettingError: a seed outside [0, 2^64) or a turn outside [0, 2^32).
    """

    seed: int
    stream: Stream
    turn: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < SEED_LIMIT:
            raise SettingError(f"seed is {self.seed}", "use an integer from 0 to 2^64 - 1")
        if not 0 <= self.turn < 2**32:
            raise SettingError(f"turn is {self.turn}", "use an integer from 0 to 2^32 - 1")


def choose(
    logits: NDArray[np.float32],
    sampling: Sampling,
    key: DrawKey,
    step: int,
    generated: Sequence[int] | NDArray[np.int64],
) -> int:
    """The next token's id: greedy where the temperature is 0, else drawn by (key, step).

    Args:
        logits: (V,) float32, C-contiguous; only read, so it may be a view of a bound output.
        sampling: temperature, top-k, top-p and repetition penalty.
        key: seed, stream and turn of the draw.
        step: number of the token within the turn.
        generated: ids generated so far in this turn, for the repetition penalty.

    Raises:
        BackendError: no logit is a usable number, which a wrong or overflowing graph causes.
        ValueError: an array of another shape or dtype, or a generated id outside the vocabulary.
    """
    ids = np.asarray(generated, dtype=np.int64)
    penalty = sampling.repetition_penalty
    try:
        if sampling.temperature == 0:
            return _core.greedy(logits, ids, penalty)
        return _core.sample(
            logits,
            ids,
            penalty,
            sampling.temperature,
            sampling.top_k,
            sampling.top_p,
            key.seed,
            key.stream,
            key.turn,
            step,
        )
    except _core.NoCandidateError as error:
        raise no_usable_logit(step, str(error)) from error


def no_usable_logit(step: int, reason: str) -> BackendError:
    """The error for a token that cannot be chosen."""
    return BackendError(
        f"the language model's logits hold no usable number at step {step} ({reason})",
        "build the engine again with --precision exact",
    )


@dataclass(frozen=True, slots=True)
class Chooser:
    """How one model's tokens of one turn are chosen; to be called as `Choose`.

    A device with the same samplers takes sampling and key from here and calls nothing.

    Args:
        sampling: settings.
        key: of its draws; a token's step is its number within the turn.
        forced: ids that the turn goes on with in place of those chosen, as many as there are.
        steer: called with the ids so far and the next one; the turn goes on with what it returns.
    """

    sampling: Sampling
    key: DrawKey
    forced: Sequence[int] = ()
    steer: Callable[[list[int], int], int] | None = None

    def __call__(self, logits: NDArray[np.float32], generated: list[int]) -> int:
        step, penalised = len(generated), generated if self.sampling.repetition_penalty != 1.0 else []
        token = choose(logits, self.sampling, self.key, step, penalised)
        if step < len(self.forced):
            token = self.forced[step]
        return token if self.steer is None else self.steer(generated, token)


def normal(shape: tuple[int, ...], key: DrawKey, step: int) -> NDArray[np.float32]:
    """Standard normals of that shape, float32, drawn by (key, step)."""
    out = np.empty(shape, np.float32)
    _core.normal(out, key.seed, key.stream, key.turn, step)
    return out


def uniform(low: float, high: float, shape: tuple[int, ...], key: DrawKey, step: int) -> NDArray[np.float32]:
    """Uniforms between low and high of that shape, float32, drawn by (key, step)."""
    out = np.empty(shape, np.float32)
    _core.uniform(out, key.seed, key.stream, key.turn, step)
    out *= np.float32(high - low)
    out += np.float32(low)
    return out
