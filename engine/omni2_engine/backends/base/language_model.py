"""A language model as a stage knows it: embeddings in, tokens out, a static KV cache in between.

Serves both models of the pipeline, the one that writes text and the one that writes speech units (spec §5, §6). A
backend makes it, see `Backend.language_model`: on the host, tokens are chosen one by one; on a device they can be
chosen there, and the host reads several at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.decode_request import DecodeRequest, Enough, Tokens
from omni2_engine.backends.base.kv_cache import DecoderState, SlotCache
from omni2_engine.model.config import DecoderConfig
from omni2_engine.model.tables import EmbeddingTable
from omni2_engine.sampling import Choose

Floats = NDArray[np.float32]


class LanguageModel(Protocol):
    """A Qwen2 decoder with its embedding table.

    Several threads may use it at once, as long as each uses states of another cache.
    """

    @property
    def config(self) -> DecoderConfig:
        """Its dimensions."""
        ...

    @property
    def table(self) -> EmbeddingTable:
        """Its token embeddings."""
        ...

    @property
    def held(self) -> int:
        """Bytes of a device's memory that it takes in addition to its graph's; 0 on the host."""
        ...

    def nbytes(self, slots: int, capacity: int) -> int:
        """Bytes that `new_cache` takes once its caches are full."""
        ...

    def fitting(self, capacity: int) -> int:
        """`capacity` positions, or as many as the graph was built for if those are fewer."""
        ...

    def new_cache(self, slots: int, capacity: int) -> SlotCache:
        """KV caches of several conversations, `capacity` positions each, which can be decoded together.

        Raises:
            CapacityError: there is no room for it.
        """
        ...

    def new_state(self, capacity: int) -> DecoderState:
        """An empty KV cache of `capacity` positions for one conversation."""
        ...

    def warm_up(self, cache: SlotCache, in_groups: bool = False) -> None:
        """Prepare what decoding in this cache takes, before a conversation does.

        Args:
            cache: none of its slots is taken.
            in_groups: conversations in it are fed a few positions at a time, rather than prompts.
        """
        ...

    def embed(self, ids: Sequence[int]) -> Floats:
        """Embeddings (n, hidden) float32 of token ids."""
        ...

    def extend(self, state: DecoderState, embeds: Floats) -> None:
        """Feed positions to one state (prefill).

        Args:
            state: its `length` moves on; `decode_many` goes on from its last position.
            embeds: (n, hidden) float32, n ≥ 1.

        Raises:
            ContextError: the cache has no room for n more positions.
        """
        ...

    def longest(self, choose: Choose) -> int:
        """Tokens worth asking for in one request when they are chosen like this."""
        ...

    def decode_many(self, requests: Sequence[DecodeRequest], enough: Enough | None = None) -> list[Tokens]:
        """Decode several tokens of several conversations. What each gets does not depend on the others.

        Args:
            requests: of different slots of one cache.
            enough: asked after every step; True ends all requests there.

        Returns:
            What came of each request; what fails for one alone is in its `error`.

        Raises:
            ContextError: one of them is full.
            ValueError: the states are not different slots of one cache.
            BackendError: the device failed.
        """
        ...

    def on_host(self) -> LanguageModel:
        """The same model with logits and hidden states on the host after every call."""
        ...
