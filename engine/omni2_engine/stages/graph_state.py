"""State of a graph that takes a sequence piece by piece: caches updated in place, small contexts passed along."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base import Graph
from omni2_engine.memory import zeros

Floats = NDArray[np.float32]


class GraphState:
    """Caches and contexts of one graph.

    Args:
        graph: its inputs with "keys" or "values" in the name are caches, those with "context" in it are contexts.
        axis: of time in a cache.
        positions: how long each cache is at first, by its name; memory is only taken as it fills.

    Attributes:
        caches: name → array, all of it.
        shown: name → the part of it that the graph sees, see `show`.
        contexts: name → array, what the last call left.
    """

    def __init__(self, graph: Graph, axis: int, positions: Callable[[str], int]) -> None:
        self._axis = axis
        self._shapes = _cache_shapes(graph)
        self.caches = zeros({name: self._shape(name, positions(name)) for name in self._shapes})
        self.shown = dict(self.caches)
        self.contexts = {
            name: np.zeros([_fixed(size) for size in shape], np.float32)
            for name, shape in graph.inputs.items()
            if "context" in name
        }
        self._bound = graph.bind(self.caches)
        self._moved = False  # what is shown is not what is bound

    @property
    def nbytes(self) -> int:
        """Bytes of caches and contexts."""
        return sum(array.nbytes for array in (*self.caches.values(), *self.contexts.values()))

    def reset(self) -> None:
        """Begin a new sequence: the left context is silence again, what caches hold will be overwritten."""
        self.contexts = {name: np.zeros_like(context) for name, context in self.contexts.items()}

    def reserve(self, positions: Callable[[str], int]) -> None:
        """Make every cache at least `positions(name)` long, keeping what it holds; one that is full doubles."""
        lengths = {name: cache.shape[self._axis] for name, cache in self.caches.items()}
        full = [name for name, length in lengths.items() if positions(name) > length]
        if not full:
            return
        grown = zeros({name: self._shape(name, max(positions(name), 2 * lengths[name])) for name in full})
        for name, cache in grown.items():
            cache[self._first(lengths[name])] = self.caches[name]
        self.caches |= grown
        self.shown |= grown
        self._moved = True

    def show(self, used: int) -> None:
        """Let the graph see the caches' first `used` positions only."""
        self.shown = {name: cache[self._first(used)] for name, cache in self.caches.items()}
        self._moved = True

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, Floats]:
        """Run once; the contexts move on to what the graph returns for them."""
        if self._moved:
            self._bound.move(self.shown)
            self._moved = False
        outputs = self._bound.run({**inputs, **self.contexts})
        self.advance(outputs)
        return outputs

    def advance(self, outputs: Mapping[str, Floats]) -> None:
        """Take the contexts that a call returned; `run` does so itself."""
        self.contexts = {name: outputs[f"new_{name}"] for name in self.contexts}

    def _shape(self, name: str, length: int) -> list[int]:
        return [length if axis == self._axis else _fixed(size) for axis, size in enumerate(self._shapes[name])]

    def _first(self, length: int) -> tuple[slice, ...]:
        return (*[slice(None)] * self._axis, slice(length))


def bytes_per_position(graph: Graph, axis: int) -> dict[str, int]:
    """Bytes that each cache of a graph takes per position; `axis` is that of time."""
    return {
        name: 4 * math.prod(_fixed(size) for place, size in enumerate(shape) if place != axis)
        for name, shape in _cache_shapes(graph).items()
    }


def _cache_shapes(graph: Graph) -> dict[str, tuple[int | str | None, ...]]:
    return {name: shape for name, shape in graph.inputs.items() if "keys" in name or "values" in name}


def _fixed(size: int | str | None) -> int:
    """A dimension the graph fixes."""
    assert isinstance(size, int)
    return size
