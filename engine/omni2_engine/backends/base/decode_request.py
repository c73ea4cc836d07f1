"""Multi-step decode: a request for several tokens of one conversation, and its result.

On the host, every token is chosen before the next step runs. On a device, the model, the sampler and the look-up of the
next embedding follow one another without the host, which reads the tokens once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.kv_cache import DecoderState
from omni2_engine.sampling import Choose

Floats = NDArray[np.float32]
Enough = Callable[[], bool]


@dataclass(frozen=True)
class DecodeRequest:
    """Decode further tokens of one conversation.

    Args:
        state: moves on by every token that is fed.
        feed: the last token chosen, to be fed first; None where the state has been fed already.
        choose: how each token is chosen.
        generated: ids chosen so far in this turn.
        tokens: how many more, at most; ≥ 1.
        ends: ids that end the request; the one chosen is part of the result.
        hidden: whether to return the hidden states that produced the tokens.
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
    """The result of a `DecodeRequest`. All ids but the last have been fed.

    Attributes:
        ids: as chosen, at least one unless there is an error.
        hidden: (hidden,) float32 for each, of the position that produced it; empty if that was not asked for.
        error: what ended the request too early.
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
