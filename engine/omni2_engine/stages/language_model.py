"""Language-model stage: embeddings in, logits and hidden state of the last position out, a static KV cache in between.

Serves both models of the pipeline, the one that writes text and the one that writes speech units (spec §5, §6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base import BoundGraph, Graph
from omni2_engine.config import DecoderConfig
from omni2_engine.errors import ContextError
from omni2_engine.memory import zeros
from omni2_engine.tables import EmbeddingTable

Floats = NDArray[np.float32]


@dataclass
class DecoderState:
    """A KV cache and what is bound to it; made by `LanguageModel.new_state`.

    `length` positions are filled. `logits` (vocab,) and `hidden` (hidden,) belong to the last of them and are
    overwritten by the next call.
    """

    caches: dict[str, Floats]
    capacity: int
    logits: Floats
    hidden: Floats
    bound: BoundGraph
    length: int = 0
    _one: NDArray[np.bool_] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._one = np.ones((1, 1, 1, self.capacity), np.bool_)  # decode sees everything there is

    @property
    def nbytes(self) -> int:
        """Bytes of the caches."""
        return sum(cache.nbytes for cache in self.caches.values())

    def truncate(self, length: int) -> None:
        """Forget every position from `length` on."""
        self.length = min(self.length, length)

    def copy_prefix(self, other: DecoderState) -> None:
        """Become a copy of another state's filled positions (a prefix prefilled once)."""
        for name, cache in other.caches.items():
            self.caches[name][:, :, : other.length] = cache[:, :, : other.length]
        self.logits[:] = other.logits
        self.hidden[:] = other.hidden
        self.length = other.length


class LanguageModel:
    """A Qwen2 decoder with its embedding table.

    Args:
        graph: an `llm` or `speech_lm` graph.
        config: its dimensions.
        table: its token embeddings.
    """

    def __init__(self, graph: Graph, config: DecoderConfig, table: EmbeddingTable) -> None:
        self._graph = graph
        self.config = config
        self.table = table

    def new_state(self, capacity: int) -> DecoderState:
        """An empty cache of `capacity` positions; pages are only taken as they fill."""
        c = self.config
        shape = (1, c.kv_heads, capacity, c.head_dim)
        caches = zeros({f"{kind}_{layer}": shape for layer in range(c.layers) for kind in ("keys", "values")})
        logits, hidden = np.zeros((1, c.vocab), np.float32), np.zeros((1, c.hidden), np.float32)
        bound = self._graph.bind(caches, {"logits": logits, "hidden": hidden})
        return DecoderState(caches, capacity, logits[0], hidden[0], bound)

    def embed(self, ids: Sequence[int]) -> Floats:
        """Embeddings (n, hidden) float32 of token ids."""
        return self.table(ids)

    def extend(self, state: DecoderState, embeds: Floats) -> None:
        """Feed positions: prefill with many, decode with one.

        Args:
            state: its `length`, `logits` and `hidden` move on.
            embeds: (n, hidden) float32, n ≥ 1.

        Raises:
            ContextError: the cache has no room for n more positions.
        """
        start, count = state.length, len(embeds)
        stop = start + count
        if stop > state.capacity:
            raise ContextError(
                f"the context needs {stop} positions and has {state.capacity}",
                "load the engine with a larger max_context",
            )
        state.bound.run(
            {
                "embeds": np.ascontiguousarray(embeds)[None],
                "positions": np.arange(start, stop, dtype=np.int64)[None],
                "write": np.array([start], np.int64),
                "last": np.array([[count - 1]], np.int64),
                "mask": _causal_mask(state, start, stop),
            }
        )
        state.length = stop


def _causal_mask(state: DecoderState, start: int, stop: int) -> NDArray[np.bool_]:
    """(1, 1, n, stop): query start + i sees keys up to itself."""
    if stop - start == 1:
        return state._one[..., :stop]
    keys = np.arange(stop)
    return (keys[None, :] <= np.arange(start, stop)[:, None])[None, None]
