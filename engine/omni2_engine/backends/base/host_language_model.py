"""A language model whose tokens the host chooses, one by one; it runs on any backend's graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.decode_request import DecodeRequest, Enough, Tokens
from omni2_engine.backends.base.graph import Graph
from omni2_engine.backends.base.kv_cache import (
    RELEASED,
    DecoderState,
    SlotCache,
    most_positions,
    require_same_caches,
    rounded,
    slot_bytes,
)
from omni2_engine.errors import ContextError
from omni2_engine.model.config import DecoderConfig
from omni2_engine.model.tables import EmbeddingTable
from omni2_engine.sampling import Choose
from omni2_engine.settings.tuning import DECODE

Floats = NDArray[np.float32]


class HostLanguageModel:
    """See `LanguageModel`. Logits and hidden states are on the host after every call.

    Args:
        graph: an `llm` or `speech_lm` graph.
        config: its dimensions.
        table: its token embeddings.
        even_batches: decode an even number of rows in every call, with an idle row if need be. Kernels of quantised
            weights take rows two by two, and sum a last single row in another order. Without the padding an answer
            would depend on how many others are decoded with it: by the last bit in a layer, by more in the logits. A
            conversation that is alone pays for it: at 0.5B 11 % (int8) and 17 % (int4) a token on two processors, up to
            a third on one. In float32 rows do not depend on each other anyway.
        prefill: another graph of the same model over the same caches, which feeds several positions at once; `graph` if
            None.

    Raises:
        EngineDirectoryError: the two graphs have different caches.
    """

    def __init__(
        self,
        graph: Graph,
        config: DecoderConfig,
        table: EmbeddingTable,
        even_batches: bool = False,
        prefill: Graph | None = None,
    ) -> None:
        self._graph, self._prefill_graph = graph, graph if prefill is None else prefill
        if prefill is not None:
            require_same_caches(graph, prefill)
        self._even_batches = even_batches
        self.config = config
        self.table = table

    def nbytes(self, slots: int, capacity: int) -> int:
        """Bytes of the caches that `new_cache` takes once they are full."""
        return slots * slot_bytes(self._graph, capacity)

    @property
    def held(self) -> int:
        """Bytes of a device's memory that it holds beside its graph's."""
        return 0

    def warm_up(self, cache: SlotCache, in_groups: bool = False) -> None:
        """Nothing to prepare; see `LanguageModel.warm_up`."""

    def fitting(self, capacity: int) -> int:
        """`capacity`, or what the graph was built for if that is less; see `LanguageModel.fitting`."""
        most = most_positions(self._graph)
        return capacity if most is None else min(capacity, most)

    def new_cache(self, slots: int, capacity: int) -> SlotCache:
        """Room for several conversations of `capacity` positions each, which can be decoded together."""
        return SlotCache(self._graph, slots, capacity, self._even_batches, self._prefill_graph)

    def new_state(self, capacity: int) -> DecoderState:
        """An empty cache of `capacity` positions, for one conversation; pages are only taken as they fill."""
        return self.new_cache(1, capacity).acquire()

    def embed(self, ids: Sequence[int]) -> Floats:
        """Embeddings (n, hidden) float32 of token ids."""
        return self.table(ids)

    def on_host(self) -> HostLanguageModel:
        """The same model, one that has logits and hidden states on the host after every call."""
        return self

    def longest(self, choose: Choose) -> int:
        """One: other sessions can decode between two tokens. See `LanguageModel.longest`."""
        return 1

    def decode_many(self, requests: Sequence[DecodeRequest], enough: Enough | None = None) -> list[Tokens]:
        """Decode several tokens, each of all conversations in as few calls as pays; see `LanguageModel.decode_many`."""
        found = [Tokens() for _ in requests]
        going = list(zip(requests, found, strict=True))
        while going:
            last = [(request.state, tokens.ids[-1] if tokens.ids else request.feed) for request, tokens in going]
            fed = [(state, token) for state, token in last if token is not None]
            if fed:
                self.decode([state for state, _ in fed], self.embed([token for _, token in fed]))
            going = [(request, tokens) for request, tokens in going if _choose(request, tokens)]
            if going and enough is not None and enough():
                break
        return found

    def extend(self, state: DecoderState, embeds: Floats) -> None:
        """Feed positions to one state: prefill with many, decode with one.

        Args:
            state: its `length`, `logits` and `hidden` move on.
            embeds: (n, hidden) float32, n ≥ 1.

        Raises:
            ContextError: the cache has no room for n more positions.
        """
        if len(embeds) == 1:
            self.decode([state], embeds)
            return
        check_room([state], len(embeds))
        piece = self._prefill_graph.most("embeds", 1) or len(embeds)
        for begin in range(0, len(embeds), piece):
            self._extend(state, embeds[begin : begin + piece])

    def _extend(self, state: DecoderState, embeds: Floats) -> None:
        """`extend` in one call."""
        start, stop = state.length, state.length + len(embeds)
        state.cache.bind_prefill(state.index).run(
            {
                "embeds": np.ascontiguousarray(embeds)[None],
                "positions": np.arange(start, stop, dtype=np.int64)[None],
                "write": np.array([start], np.int64),
                "last": np.array([[len(embeds) - 1]], np.int64),
                "mask": (np.arange(stop)[None, :] <= np.arange(start, stop)[:, None])[None, None],
            }
        )
        state.length = stop

    def decode(self, states: Sequence[DecoderState], embeds: Floats) -> None:
        """Feed one position to each of several states, in as few calls as pays.

        The result of a state does not depend on which other states are fed with it.

        Args:
            states: different slots of one cache, in any order; `length`, `logits` and `hidden` of each move on.
            embeds: (n, hidden) float32, a row per state.

        Raises:
            ContextError: one state is full; none was fed.
            ValueError: the states are not different slots of one cache.
        """
        check_room(states, 1)
        order = sorted(range(len(states)), key=lambda number: states[number].index)
        slots = [states[number].index for number in order]
        if any(state.cache is not states[0].cache for state in states) or len(set(slots)) < len(slots):
            raise ValueError(f"states to decode together are different slots of one cache, not {slots}")
        for begin, end in _runs(slots):
            members = order[begin:end]
            _decode_run([states[number] for number in members], embeds[members])


def _choose(request: DecodeRequest, tokens: Tokens) -> bool:
    """Choose a token from the state's logits; whether another is to follow."""
    try:
        token = request.choose(request.state.logits, [*request.generated, *tokens.ids])
    except BaseException as error:
        tokens.error = error
        return False
    tokens.ids.append(token)
    if request.hidden:
        tokens.hidden.append(request.state.hidden.copy())
    return token not in request.ends and len(tokens.ids) < request.tokens


def _decode_run(states: Sequence[DecoderState], embeds: Floats) -> None:
    """One call for states in the order of their slots; slots in between stay as they are, see `slots`."""
    cache = states[0].cache
    first, stop = cache.span(states[0].index, states[-1].index)
    count, taking_part = stop - first, [state.index - first for state in states]
    whole = count == len(states)
    write = np.full(count, cache.positions - 1, np.int64)
    write[taking_part] = [state.length for state in states]
    positions, fed = write[:, None], embeds
    if not whole:
        positions = np.zeros((count, 1), np.int64)  # the spare position may lie beyond the rotary tables
        positions[taking_part, 0] = write[taking_part]
        fed = np.zeros((count, embeds.shape[1]), np.float32)
        fed[taking_part] = embeds
    visible = rounded(max(state.length for state in states) + 1)
    cache.bind(first, stop, aside=not whole).run(
        {
            "embeds": np.ascontiguousarray(fed)[:, None],
            "positions": positions,
            "write": write,
            "last": np.zeros((count, 1), np.int64),
            "mask": (np.arange(visible) <= write[:, None])[:, None, None],
        }
    )
    if not whole:
        cache.take([state.index for state in states])
    for state in states:
        state.length += 1


def _runs(slots: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of ascending `slots` with at most `DecodeTuning.most_idle` idle ones between neighbours."""
    begin = 0
    for end in range(1, len(slots) + 1):
        if end == len(slots) or slots[end] - slots[end - 1] - 1 > DECODE.most_idle:
            yield begin, end
            begin = end


def check_room(states: Sequence[DecoderState], count: int) -> None:
    """Refuse `count` further positions where a state has no room for them, or was released.

    Raises:
        ContextError, ValueError: see `HostLanguageModel.decode`.
    """
    for state in states:
        if state.index == RELEASED:
            raise ValueError("the state was released")
        if state.length + count > state.capacity:
            raise ContextError(
                f"the context needs {state.length + count} positions and has {state.capacity}",
                "load the engine with a larger max_context",
            )
