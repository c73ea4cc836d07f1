"""What a stage needs of its graph: memory for its state, which calls update in place, and calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Shape = tuple[int | str | None, ...]


class StateArray(Protocol):
    """State of a graph where its backend keeps it: a NumPy array on the host, a `DeviceArray` on a device.

    A stage looks at shape and size, and takes views: with integers and slices without a step.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nbytes(self) -> int: ...
    def __getitem__(self, index: Any) -> Self: ...


class StateMemory(Protocol):
    """Memory for state, zero at first. What is done to it happens in order with the calls of the graph it is for.

    Attributes:
        arrays: what was asked for, by name.
    """

    @property
    def arrays(self) -> Mapping[str, Any]: ...
    def copy(self, to: Any, source: Any) -> None:
        """Make a view like another of the same shape, which may be of other memory for the same graph; a contiguous one
        like an array of the host."""
        ...

    def clear(self, part: Any) -> None:
        """Set a contiguous view to zero."""
        ...

    def give_back(self, part: Any) -> None:
        """Give a contiguous view's memory back; it holds undefined finite values afterwards. Any thread may call it."""
        ...


class BoundGraph(Protocol):
    """A graph with its state bound: it is updated in place, fixed outputs land in fixed memory."""

    def move(self, state: Mapping[str, Any]) -> None:
        """Bind other memory for state bound before, for example a longer piece of the same cache."""
        ...

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with the remaining inputs.

        Args:
            inputs: every input that is not state, C-contiguous, of the graph's dtype.

        Returns:
            Every output that is not state; a fixed one is the very array given to `bind`, valid until the next run.

        Raises:
            BackendError: the device failed.
        """
        ...


class Graph(Protocol):
    """One loaded graph."""

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """Shape per input name; a dynamic dimension is a string or None."""
        ...

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """Shape per output name."""
        ...

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """Of every input and output; bfloat16 is kept as uint16."""
        ...

    def most(self, name: str, axis: int) -> int | None:
        """The largest size of a dimension of an input; None if there is no limit."""
        ...

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with all inputs given; returns every output. Several threads may call it at once."""
        ...

    def expect(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Be told that `run` will often be called with inputs of these shapes, before its first call."""
        ...

    def expect_chains(self, count: int) -> None:
        """Be told, before the first `run_chain`, how many will come again: each in its shapes, with its state."""
        ...

    def state(self, shapes: Mapping[str, Sequence[int]]) -> StateMemory:
        """Memory for state inputs of these names, in the graph's dtypes.

        Raises:
            CapacityError: there is not enough memory.
        """
        ...

    def results(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
        """Arrays on the host for outputs of these names, zero at first, in memory that the graph writes fast."""
        ...

    def run_chain(
        self,
        bound: Sequence[BoundGraph],
        inputs: Arrays,
        each: Sequence[Arrays],
        carried: Mapping[str, str],
        before: CallBefore | None = None,
    ) -> dict[str, Array]:
        """Run the graph several times in a row, without the host in between where the backend can.

        Args:
            bound: the graph with the state of every run, all in one shape.
            inputs: of every run; what is carried, of the first.
            each: of one run alone, in order, all in one shape.
            carried: output → the next run's input.
            before: a call of another graph of the same backend that comes first.

        Returns:
            What the last run gives, see `BoundGraph.run`.
        """
        ...

    def bind(self, state: Mapping[str, Any], fixed: Arrays | None = None) -> BoundGraph:
        """Bind memory once.

        Args:
            state: views of `state` memory that are input `name` and output `new_<name>` at once.
            fixed: arrays of `results` that outputs of the same name are written to.
        """
        ...


@dataclass(frozen=True)
class CallBefore:
    """A call without state before a chain, see `Graph.run_chain`.

    Args:
        graph: what is called.
        inputs: of the call.
        passed: its output → an input of every run of the chain.
    """

    graph: Graph
    inputs: Arrays
    passed: Mapping[str, str]


def run_one_by_one(
    bound: Sequence[BoundGraph],
    inputs: Arrays,
    each: Sequence[Arrays],
    carried: Mapping[str, str],
    before: CallBefore | None = None,
) -> dict[str, Array]:
    """`Graph.run_chain` with one call of the graph per run."""
    given, outputs = dict(inputs), dict[str, Array]()
    if before is not None:
        made = before.graph.run(before.inputs)
        given |= {taken: made[output] for output, taken in before.passed.items()}
    for graph, own in zip(bound, each, strict=True):
        outputs = graph.run({**given, **own})
        given |= {taken: outputs[made] for made, taken in carried.items()}
    return outputs


def is_cache(name: str) -> bool:
    """Whether an input of that name is a cache: state in which a call writes some positions, before it reads any."""
    return "keys" in name or "values" in name


def is_context(name: str) -> bool:
    """Whether an input of that name is a context: state that is read and written whole in every call, so that no call
    may do both in one place."""
    return "context" in name
