"""Slots of one static KV cache: conversations that lie side by side in memory, so that one call can serve several.

A call binds a contiguous range of slots. Idle slots in the range are computed too: they write to a spare position at
their end that is never read, and their outputs are dropped. So a call does not change an idle slot, and another thread
may use it meanwhile.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.graph import BoundGraph, Graph, Shape, is_cache
from omni2_engine.errors import CapacityError, EngineDirectoryError

Floats = NDArray[np.float32]
# The keys that a decoding query sees come in multiples of this. Attention kernels sum a remainder in another order, so
# that without it a row would depend on the lengths of its neighbours.
GRANULE = 16
OUTPUTS = ("logits", "hidden")
POSITION_AXIS = 2  # of a cache
RELEASED = -1  # the index of a state whose slot was given back


class SlotCache:
    """KV caches of a decoder for several conversations, and the outputs of its last position for each.

    The caches are where the graph's backend keeps state; on the host memory is taken as positions fill, and given back
    when a slot is released. Slots may be acquired and released by any thread at any time. Running the graph is for one
    thread at a time: prefill and decode of one model are one stage, and a scheduler runs one task of a stage at a time.

    Args:
        graph: an `llm` or `speech_lm` graph.
        slots: how many conversations, ≥ 1.
        capacity: positions of each, ≥ 1.
        even_batches: decode an even number of slots in every call, see `HostLanguageModel`.
        prefill: another graph over the same caches, see `HostLanguageModel`.

    Attributes:
        caches: name → (slots, heads, positions, width), of the graph's type; with `even_batches` an odd number of slots
            has a further one for padding.
        logits, hidden: (slots, vocab) and (slots, hidden) float32, likewise, on the host.
        positions: of each slot, the spare one included; a multiple of `GRANULE`, or what the graph was built for.

    Raises:
        CapacityError: the graph was built for fewer positions, or the device has no room.
    """

    def __init__(
        self, graph: Graph, slots: int, capacity: int, even_batches: bool = False, prefill: Graph | None = None
    ) -> None:
        self.slots = slots
        self.capacity = capacity
        self._even_batches = even_batches
        self._rows = slots + slots % 2 if even_batches else slots
        most = graph.most("embeds", 0)
        if most is not None and self._rows > most:
            raise CapacityError(
                f"{slots} conversations are to share calls, and the plan takes {most}",
                f"load with at most {most} sessions, or build plans for more",
            )
        shapes = {name: shape for name, shape in graph.inputs.items() if is_cache(name)}
        self.positions = _positions(graph, capacity)
        self._memory = graph.state({name: _sized(shape, self._rows, self.positions) for name, shape in shapes.items()})
        self.caches = self._memory.arrays
        outputs = {name: _sized(graph.outputs[name], self._rows) for name in OUTPUTS}
        self._outputs, self._aside = graph.results(outputs), graph.results(outputs)
        self.logits, self.hidden = (self._outputs[name] for name in OUTPUTS)
        self._graph, self._prefill = graph, graph if prefill is None else prefill
        self._bound: dict[tuple[Graph, int, int, bool], BoundGraph] = {}
        self._free = list(range(slots))  # a heap: the lowest are taken first, which keeps ranges short
        self._lock = threading.RLock()  # garbage collection may release a slot at any moment, in here too

    @property
    def free(self) -> int:
        """Slots that are free."""
        return len(self._free)

    @property
    def slot_nbytes(self) -> int:
        """Bytes the caches of one slot take once all its positions are filled."""
        return sum(cache[0].nbytes for cache in self.caches.values())

    def acquire(self) -> DecoderState:
        """An empty slot.

        Raises:
            CapacityError: all are taken.
        """
        with self._lock:
            if not self._free:
                raise CapacityError(
                    f"all {self.slots} slots of the cache are taken", "close a session, or load with room for more"
                )
            return DecoderState(self, heapq.heappop(self._free))

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The range to bind for slots from `first` to `last`: (first, stop), with `even_batches` of an even length."""
        stop = last + 1
        if not self._even_batches or (stop - first) % 2 == 0:
            return first, stop
        return (first, stop + 1) if stop < self._rows else (first - 1, stop)

    def bind(self, first: int, stop: int, aside: bool) -> BoundGraph:
        """The graph bound to the slots first … stop − 1; kept, as binding takes longer than all else around a call.

        Args:
            aside: write logits and hidden states to memory that belongs to no slot, see `take`.
        """
        return self._bind(self._graph, first, stop, aside)

    def bind_prefill(self, slot: int) -> BoundGraph:
        """The graph that feeds several positions at once, bound to one slot; kept likewise."""
        return self._bind(self._prefill, slot, slot + 1, aside=False)

    def _bind(self, graph: Graph, first: int, stop: int, aside: bool) -> BoundGraph:
        key = (graph, first, stop, aside)
        if key not in self._bound:
            outputs = self._aside if aside else self._outputs
            self._bound[key] = graph.bind(
                {name: cache[first:stop] for name, cache in self.caches.items()},
                {name: outputs[name][first:stop] for name in OUTPUTS},
            )
        return self._bound[key]

    def take(self, slots: Sequence[int]) -> None:
        """Copy what was written aside for these slots to their own outputs."""
        for name, aside in self._aside.items():
            for slot in slots:
                self._outputs[name][slot] = aside[slot]

    def filled(self, slot: int, length: int, start: int = 0) -> dict[str, Any]:
        """Views (heads, length − start, width) of the positions from `start` to `length` of one slot, by name of the
        cache."""
        return {name: cache[slot][:, start:length] for name, cache in self.caches.items()}

    def copy(self, to: Mapping[str, Any], source: Mapping[str, Any]) -> None:
        """Copy views of `filled`; the source may be of another cache of the graph."""
        for name, view in to.items():
            self._memory.copy(view, source[name])

    def keep(self, slot: int, length: int, start: int = 0) -> dict[str, Any]:
        """A copy of `filled`, in memory of its own."""
        filled = self.filled(slot, length, start)
        kept = self._graph.state({name: view.shape for name, view in filled.items()}).arrays
        self.copy(kept, filled)
        return dict(kept)

    def release(self, state: DecoderState) -> None:
        """Take a slot back, and its memory with it; see `DecoderState.release`."""
        with self._lock:  # a second call finds it released
            slot, state.index = state.index, RELEASED
        if slot == RELEASED:
            return
        for cache in self.caches.values():
            self._memory.give_back(cache[slot])
        with self._lock:
            heapq.heappush(self._free, slot)


@dataclass(frozen=True)
class Prefix:
    """What a state held when it was kept, see `DecoderState.keep`: `length` positions and the outputs of the last."""

    caches: Mapping[str, Any]
    length: int
    logits: Floats
    hidden: Floats

    def filled(self) -> Mapping[str, Any]:
        """Views (heads, length, width) of all positions."""
        return self.caches


@dataclass(frozen=True)
class CacheTail:
    """What a state held from position `start` to `stop`, see `DecoderState.keep_tail`."""

    caches: Mapping[str, Any]
    start: int
    stop: int


class DecoderState:
    """One slot: a KV cache and the outputs of its last position; made by `SlotCache.acquire`.

    Attributes:
        cache: what it is a slot of.
        index: which one, `RELEASED` after that.
        length: positions filled.
        logits: (vocab,) float32 of the last position, overwritten when the slot is fed.
        hidden: (hidden,) float32, likewise.
    """

    def __init__(self, cache: SlotCache, index: int) -> None:
        self.cache = cache
        self.index = index
        self.length = 0
        self.logits = cache.logits[index]
        self.hidden = cache.hidden[index]

    @property
    def capacity(self) -> int:
        """Positions there is room for."""
        return self.cache.capacity

    @property
    def nbytes(self) -> int:
        """Bytes the caches take once they are full."""
        return self.cache.slot_nbytes

    def truncate(self, length: int) -> None:
        """Forget every position from `length` on."""
        self.length = min(self.length, length)

    def filled(self) -> Mapping[str, Any]:
        """Views (heads, length, width) of the filled positions, by name of the cache."""
        return self.cache.filled(self.index, self.length)

    def keep(self) -> Prefix:
        """A copy of the filled positions and the outputs of the last, which takes no more memory than that."""
        return Prefix(self.cache.keep(self.index, self.length), self.length, self.logits.copy(), self.hidden.copy())

    def keep_tail(self, start: int, stop: int) -> CacheTail:
        """A copy of the positions from `start` to `stop`, one or more, which are about to be overwritten."""
        return CacheTail(self.cache.keep(self.index, stop, start), start, stop)

    def put_back(self, tail: CacheTail) -> None:
        """Hold what `keep_tail` kept behind the positions before, which must be those of then."""
        self.cache.copy(self.cache.filled(self.index, tail.stop, tail.start), tail.caches)
        self.length = tail.stop

    def copy_prefix(self, other: DecoderState | Prefix) -> None:
        """Copy another state's filled positions (a prefix prefilled once); it may be of another cache."""
        self.cache.copy(self.cache.filled(self.index, other.length), other.filled())
        self.logits[:] = other.logits
        self.hidden[:] = other.hidden
        self.length = other.length

    def release(self) -> None:
        """Give the slot and its memory back; nothing may use the state afterwards. A second time does nothing."""
        self.cache.release(self)


def most_positions(graph: Graph) -> int | None:
    """How many positions a slot can have at most: those the graph was built for, less the spare one; None: any."""
    fixed = next(shape for name, shape in graph.inputs.items() if is_cache(name))[POSITION_AXIS]
    return fixed - 1 if isinstance(fixed, int) else None


def require_same_caches(graph: Graph, other: Graph) -> None:
    """Refuse two graphs that cannot work on one cache.

    Raises:
        EngineDirectoryError: their caches differ in name, shape or type.
    """
    ours, others = (
        {name: (shape, made.dtypes[name]) for name, shape in made.inputs.items() if is_cache(name)}
        for made in (graph, other)
    )
    if ours != others:
        raise EngineDirectoryError(
            "the graphs that prefill and decode have different KV caches", "build the engine again"
        )


def slot_bytes(graph: Graph, capacity: int) -> int:
    """Bytes of one slot's caches with room for `capacity` positions."""
    positions = _positions(graph, capacity)
    return sum(
        graph.dtypes[name].itemsize * math.prod(_sized(shape, 1, positions))
        for name, shape in graph.inputs.items()
        if is_cache(name)
    )


def _positions(graph: Graph, capacity: int) -> int:
    """Positions of every slot, a spare one among them: as many as needed, or the number a graph was built for."""
    most = most_positions(graph)
    if most is None:
        return rounded(capacity + 1)
    if capacity > most:
        raise CapacityError(
            f"{capacity} positions are asked for, and the plan has {most}",
            "ask for less (max_context, max_new_tokens, max_last_write), or build plans for more",
        )
    return most + 1


def _sized(shape: Shape, rows: int, positions: int | None = None) -> list[int]:
    sizes: list[Any] = list(shape)
    sizes[0] = rows
    if positions is not None:
        sizes[POSITION_AXIS] = positions
    return sizes


def rounded(positions: int) -> int:
    """Positions that a decoding query is shown so that it can see `positions` of them; the rest is masked."""
    return -(-positions // GRANULE) * GRANULE
