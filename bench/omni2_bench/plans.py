"""What TensorRT plans take to build: size, time and memory of each, held to a limit of memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omni2_engine.manifest import PlanEntry
from omni2_export.checkpoint import Checkpoint
from omni2_export.tensorrt.plans import plan_specs
from omni2_export.tensorrt.scratch import GraphScratch
from omni2_export.tensorrt.shapes import Sizes
from omni2_export.tensorrt.stages import make_plan_stages
from omni2_export.tensorrt.targets import check_buildable
from omni2_export.tensorrt.worker import Built


@dataclass(frozen=True)
class PlanCost:
    """One plan: what it was said to take of memory, what it took, and its file's bytes."""

    entry: PlanEntry
    built: Built
    foretold: int
    size: int


def measure_plans(
    checkpoint: Checkpoint,
    formats: Mapping[str, str],
    sizes: Sizes,
    targets: Sequence[str],
    folder: Path,
    stages: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> list[PlanCost]:
    """Build plans one after the other; none is kept.

    Args:
        checkpoint: what they are made from.
        formats: number format per stage.
        sizes: what they are to hold.
        targets: architectures.
        folder: where there is room for a graph and its plan.
        stages: only these; all if none are named.
        say: told what is being built.

    Raises:
        Omni2Error: a plan cannot be built.
    """
    library = check_buildable(tuple(targets))
    specs = [spec for spec in plan_specs(checkpoint, formats, sizes) if not stages or spec.stage in stages]
    took: list[Built] = []
    costs = []
    with tempfile.TemporaryDirectory(dir=folder) as place, GraphScratch(Path(place) / "graph") as scratch:
        here = Path(place)

        def timing_cache(target: str) -> Path:
            return here / f"{target}.timings"

        for stage in make_plan_stages(
            checkpoint, specs, targets, library, scratch, timing_cache, lambda _, built: took.append(built)
        ):
            say(f"building {stage.name}, {stage.entry.precision}")
            stage.write(here, lambda size: None)
            plan = here / stage.entry.file
            costs.append(PlanCost(stage.entry, took[-1], stage.memory, plan.stat().st_size))
            plan.unlink()
            plan.parent.rmdir()
    return costs
