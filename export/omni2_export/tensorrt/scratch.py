"""The graph that plans are being built from: written once for all architectures, and gone afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from omni2_export.tensorrt.facts import Facts, read_facts

if TYPE_CHECKING:
    from omni2_export.tensorrt.plans import PlanSpec


class GraphScratch:
    """Holds one graph at a time; a context manager that leaves none behind.

    Args:
        folder: a place of its own, made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: tuple[str, Path, Facts] | None = None

    def holds(self, spec: PlanSpec) -> bool:
        """Whether a plan's graph is the one held."""
        return self._held is not None and self._held[0] == spec.stage

    def graph(self, spec: PlanSpec, on_bytes: Callable[[int], None]) -> tuple[Path, Facts]:
        """The file of a plan's graph and what there is to know about it; written unless it is the one held."""
        if self._held is None or not self.holds(spec):
            self.remove()
            self._folder.mkdir(parents=True)
            path = spec.graph.write(self._folder, spec.storage, spec.numerics, spec.space.capacities, on_bytes)
            self._held = (spec.stage, path, read_facts(path))
        return self._held[1:]

    def remove(self) -> None:
        """Give its space back."""
        self._held = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> GraphScratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
