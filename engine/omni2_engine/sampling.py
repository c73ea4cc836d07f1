"""How a token is chosen from logits and how noise is drawn: settings and keys in, an id or an array out.

Every draw is named by who draws (seed, stream) and when (turn, step), never by what was drawn before: one seed gives
one answer on any schedule, batch or thread count. The arithmetic is that of cuda/draw.cuh in the kernels
and cpp/sampling.h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from omni2_engine import _core
from omni2_engine.errors import BackendError, SettingError
from omni2_engine.settings import integer, real, shown

SEED_LIMIT = 2**64
SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "repetition_penalty")
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

    Numbers may be of any type, see `settings`; None leaves top-k, top-p or the penalty out.

    Raises:
        SettingError: a value outside its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        temperature = real("temperature", self.temperature, "0 (greedy) or a positive number")
        if not 0 <= temperature < math.inf:
            raise SettingError(f"temperature is {temperature}", "use 0 (greedy) or a positive number")
        top_k = integer(
            "top-k", self.top_k, "0 (keep all) or the number of tokens to keep", least=0, most=2**32 - 1, none=0
        )
        top_p = real("top-p", self.top_p, "a share above 0 and up to 1 (keep all)", none=1.0)
        if not 0 < top_p <= 1:
            raise SettingError(f"top-p is {top_p}", "use a share above 0 and up to 1 (keep all)")
        penalty = real("repetition penalty", self.repetition_penalty, "a positive number, 1 for none", none=1.0)
        if not 0 < penalty < math.inf:
            raise SettingError(f"repetition penalty is {penalty}", "use a positive number, 1 for none")
        for name, value in zip(SAMPLING_FIELDS, (temperature, top_k, top_p, penalty), strict=True):
            object.__setattr__(self, name, value)


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

    Raises:
        SettingError: (from a call) `forced` or `steer` gave what is no id of the vocabulary.
    """

    sampling: Sampling
    key: DrawKey
    forced: Sequence[int] = ()
    steer: Callable[[list[int], int], int] | None = None

    def __call__(self, logits: NDArray[np.float32], generated: list[int]) -> int:
        step, penalised = len(generated), generated if self.sampling.repetition_penalty != 1.0 else []
        token = choose(logits, self.sampling, self.key, step, penalised)
        if step < len(self.forced):
            token = checked_id("a forced id", self.forced[step], len(logits))
        if self.steer is not None:
            token = checked_id("what steer returned", self.steer(generated, token), len(logits))
        return token


def checked_id(name: str, token: object, vocabulary: int) -> int:
    """A token id from outside as an int.

    Raises:
        SettingError: it is none of the vocabulary's.
    """
    return integer(name, token, f"an id from 0 to {vocabulary - 1}", least=0, most=vocabulary - 1)


def checked_ids(
    forced: Mapping[Stream, Sequence[int]], vocabularies: Mapping[Stream, int]
) -> dict[Stream, tuple[int, ...]]:
    """Ids that turns are to go on with, as tuples of ints.

    Args:
        forced: by model.
        vocabularies: size of each model's.

    Raises:
        SettingError: a model there is not, or what is no id of its vocabulary.
    """
    use = "a dict of lists of ids, with keys Stream.TEXT and Stream.SPEECH"
    if not isinstance(forced, Mapping):
        raise SettingError(f"forced is {shown(forced)}", f"use {use}")
    checked: dict[Stream, tuple[int, ...]] = {}
    for stream, ids in forced.items():
        if stream not in vocabularies or not isinstance(ids, (Sequence, np.ndarray)) or isinstance(ids, str):
            raise SettingError(f"forced has {shown(ids)} for {shown(stream)}", f"use {use}")
        checked[stream] = tuple(checked_id("a forced id", token, vocabularies[stream]) for token in ids)
    return checked


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
