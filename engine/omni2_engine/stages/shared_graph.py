"""Calls that several states share: one graph with a place for each of them, whose memory stays where it lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from omni2_engine.backends.base import Graph
from omni2_engine.stages.graph_state import Floats, GraphState

Inputs = Mapping[str, NDArray[Any]]


class SharedGraph:
    """The graph of a `GraphState`, for several states at once.

    Args:
        graph: has the inputs and outputs of the graph for one state once per place, ending in ".0", ".1" and so on; an
            input without such an end is for all.
        solo: the graph for one state.
        nothing: inputs of the shortest sequence there is, without contexts: what a place that nobody takes computes.

    Attributes:
        places: states that one call serves at most.
    """

    def __init__(self, graph: Graph, solo: Graph, nothing: Inputs) -> None:
        self.places = len({name.partition(".")[2] for name in graph.inputs} - {""})
        self._idle = [(GraphState(solo, lambda _: 1), nothing) for _ in range(self.places)]
        self._bound = graph.bind(_placed(state.shown for state, _ in self._idle))

    def run(self, states: Sequence[GraphState], inputs: Sequence[Inputs], common: Inputs) -> list[dict[str, Floats]]:
        """Run once for every state, as each's own `run` would; contexts move on likewise.

        Args:
            states: at most `places`, different ones.
            inputs: of each.
            common: inputs for all.

        Returns:
            The outputs of each.
        """
        taken = [*zip(states, inputs, strict=True), *self._idle[len(states) :]]
        self._bound.move(_placed(state.shown for state, _ in taken))
        outputs = self._bound.run({**common, **_placed(own for _, own in taken)})
        results: list[dict[str, Floats]] = [{} for _ in taken]
        for name, array in outputs.items():
            name, _, place = name.rpartition(".")
            results[int(place)][name] = array
        return results[: len(states)]


def _placed(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Arrays of every place under the names they have there."""
    return {f"{name}.{place}": array for place, part in enumerate(parts) for name, array in part.items()}
