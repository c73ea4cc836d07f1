"""State of a graph that takes a sequence piece by piece: caches and contexts, updated in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.graph import BoundGraph, Graph, Shape, is_cache, is_context
from omni2_engine.errors import CapacityError

Floats = NDArray[np.float32]
Inputs = Mapping[str, NDArray[Any]]
TIME_AXIS = -2  # of a cache


class GraphState:
    """Caches and contexts of one graph, in its backend's memory.

    Args:
        graph: its inputs with "keys" or "values" in the name are caches, those with "context" in it are contexts.
        positions: how long each cache is at first, by its name; where the graph fixes it, that is how long it is.

    Attributes:
        caches, contexts: name → array, all of it.
        shown: name → what a call sees of it, see `show`.

    Raises:
        CapacityError: there is no room for it.
    """

    def __init__(self, graph: Graph, positions: Callable[[str], int]) -> None:
        self._graph = graph
        self._shapes = {name: shape for name, shape in graph.inputs.items() if is_cache(name) or is_context(name)}
        self._memory = graph.state({name: _sized(shape, positions(name)) for name, shape in self._shapes.items()})
        self.caches = {name: array for name, array in self._memory.arrays.items() if is_cache(name)}
        self.contexts = {name: array for name, array in self._memory.arrays.items() if is_context(name)}
        self.shown: dict[str, Any] = {**self.caches, **self.contexts}
        self._bound = graph.bind(self.shown)
        self._moved = False  # whether `shown` has to be bound again

    @property
    def nbytes(self) -> int:
        """Bytes of caches and contexts."""
        return sum(array.nbytes for array in (*self.caches.values(), *self.contexts.values()))

    def reset(self) -> None:
        """Begin a new sequence: the left context is silence again, what caches hold will be overwritten."""
        for context in self.contexts.values():
            self._memory.clear(context)

    def reserve(self, positions: Callable[[str], int]) -> None:
        """Make every cache at least `positions(name)` long, keeping what it holds; one that is full doubles.

        Raises:
            CapacityError: the graph was built for fewer positions, or there is no room.
        """
        lengths = {name: cache.shape[TIME_AXIS] for name, cache in self.caches.items()}
        full = [name for name, length in lengths.items() if positions(name) > length]
        if not full:
            return
        grown = {name: _sized(self._shapes[name], max(positions(name), 2 * lengths[name])) for name in full}
        for name, shape in grown.items():
            if shape[TIME_AXIS] < positions(name):
                raise CapacityError(
                    f"a turn needs {positions(name)} positions of {name}, and the plan has {lengths[name]}",
                    "let it say less (max_new_tokens, max_last_write), or build plans for longer turns",
                )
        memory = self._graph.state(grown)
        for name, cache in memory.arrays.items():
            memory.copy(_first(cache, lengths[name]), self.caches[name])
        self.caches |= memory.arrays
        self.shown |= memory.arrays
        self._moved = True

    def show(self, used: int) -> None:
        """Let the graph see the caches' first `used` positions only, where it does not cut them out itself."""
        if any(not isinstance(self._shapes[name][TIME_AXIS], int) for name in self.caches):
            self.shown |= {name: _first(cache, used) for name, cache in self.caches.items()}
            self._moved = True

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, Floats]:
        """Run once; caches and contexts move on."""
        return self._settled().run(inputs)

    def _settled(self) -> BoundGraph:
        """The graph, with what is shown bound to it."""
        if self._moved:
            self._bound.move(self.shown)
            self._moved = False
        return self._bound

    @staticmethod
    def run_chain(
        states: Sequence[GraphState], inputs: Inputs, each: Sequence[Inputs], carried: Mapping[str, str]
    ) -> dict[str, Floats]:
        """Run several states of one graph in a row, see `Graph.run_chain`; caches and contexts of each move on."""
        return states[0]._graph.run_chain([state._settled() for state in states], inputs, each, carried)


def cache_bytes(graph: Graph, positions: Callable[[str], int]) -> int:
    """Bytes that a graph's caches take, `positions(name)` positions each."""
    return sum(
        graph.dtypes[name].itemsize * math.prod(_sized(shape, positions(name)))
        for name, shape in graph.inputs.items()
        if is_cache(name)
    )


def cache_positions(graph: Graph) -> int | None:
    """Positions of a graph's caches where it fixes how many there are."""
    length = next(shape for name, shape in graph.inputs.items() if is_cache(name))[TIME_AXIS]
    return length if isinstance(length, int) else None


def _sized(shape: Shape, length: int) -> list[int]:
    """A shape with `length` positions, or as many as the graph fixes; all other sizes are fixed."""
    sizes: list[Any] = list(shape)
    if len(shape) >= 2 and not isinstance(shape[TIME_AXIS], int):
        sizes[TIME_AXIS] = length
    return sizes


def _first(cache: Any, length: int) -> Any:
    """View of the first positions."""
    return cache[(*[slice(None)] * (len(cache.shape) + TIME_AXIS), slice(length))]
