"""What a stage needs from whatever runs its graph: call it, or bind its caches once and call it many times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]


class BoundGraph(Protocol):
    """A graph with its state bound: caches are updated in place, fixed outputs land in fixed memory."""

    def move(self, state: Arrays) -> None:
        """Bind other memory for state bound before, for example a longer piece of the same cache."""
        ...

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with the remaining inputs.

        Args:
            inputs: every input that is not state, C-contiguous, of the graph's dtype.

        Returns:
            Every output that is not state; a fixed one is the very array given to `bind`, valid until the next run.
        """
        ...


class Graph(Protocol):
    """One loaded graph."""

    @property
    def inputs(self) -> Mapping[str, tuple[int | str | None, ...]]:
        """Shape per input name; a dynamic dimension is a string or None."""
        ...

    @property
    def outputs(self) -> Mapping[str, tuple[int | str | None, ...]]:
        """Shape per output name."""
        ...

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run with all inputs given; returns every output."""
        ...

    def bind(self, state: Arrays, fixed: Arrays | None = None) -> BoundGraph:
        """Bind memory once.

        Args:
            state: arrays that are input `name` and output `new_<name>` at once, updated in place.
            fixed: arrays that outputs of the same name are written to.
        """
        ...


class Backend(Protocol):
    """Loads graphs on one device.

    Attributes:
        name: of the backend.
        width: calls worth running at once; None if every stage has a stream of its own.
        shares_decoder_calls: whether several sessions' flow and vocoder calls take less time together than one after
            another.
    """

    name: str
    width: int | None
    shares_decoder_calls: bool

    def load(self, path: Path) -> Graph:
        """Load the graph at `path`.

        Raises:
            EngineDirectoryError: the file is missing or damaged.
            BackendError: this backend cannot run it.
        """
        ...
