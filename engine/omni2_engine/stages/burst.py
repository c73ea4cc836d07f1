"""Several tokens of one conversation in one piece of work: what a language model is asked for, and what came of it.

A model on a processor of this machine writes one token at a time, as the host chooses it. On a device engine, sampler
and the look-up of the next embedding follow one another without the host, which reads the tokens once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from omni2_engine.sampling import Choose
from omni2_engine.stages.slots import DecoderState

Floats = NDArray[np.float32]
Enough = Callable[[], bool]


@dataclass(frozen=True)
class Burst:
    """A request: write on.

    Args:
        state: moves on by every token that is fed.
        feed: the last token chosen, to be fed first; None where the state has just been fed what the next one follows.
        choose: how each token is chosen.
        generated: ids chosen so far in this turn.
        tokens: how many more, at most; ≥ 1.
        ends: ids that end the burst with them.
        hidden: whether the hidden states behind the tokens are wanted.
    """

    state: DecoderState
    feed: int | None
    choose: Choose
    generated: list[int]
    tokens: int
    ends: tuple[int, ...]
    hidden: bool = False


@dataclass
class Tokens:
    """What a burst gave. All of it but the last id has been fed.

    Attributes:
        ids: as chosen, at least one unless there is an error.
        hidden: (hidden,) float32 for each, of the position that produced it; empty if that was not asked for.
        error: what kept the burst from going on.
    """

    ids: list[int] = field(default_factory=list)
    hidden: list[Floats] = field(default_factory=list)
    error: BaseException | None = None

    def check(self) -> None:
        """Raise the error if there is one, once."""
        error, self.error = self.error, None  # whose frames refer to this object
        try:
            if error is not None:
                raise error
        finally:
            del error
