"""What TensorRT plans of random weights take to build: size, time and memory of each.

python -m omni2_bench.lab.plans --size 0.5B --target sm89
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from omni2_bench.common.models import dimensions_of
from omni2_bench.common.results import table
from omni2_bench.lab.random_weights import StandInGraph, random_modules
from omni2_engine.errors import SettingError
from omni2_engine.model.config import ModelConfig
from omni2_engine.model.manifest import PlanEntry
from omni2_export.build.precision import GPU, Precisions, parse_precision
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.tensorrt.plans import plan_specs
from omni2_export.tensorrt.scratch import GraphScratch
from omni2_export.tensorrt.shapes import Sizes
from omni2_export.tensorrt.stages import make_plan_stages
from omni2_export.tensorrt.targets import check_buildable, parse_targets
from omni2_export.tensorrt.worker import Built

COUNTED = ("layers", "attentions", "size", "parse + build", "peak memory", "foretold")


@dataclass(frozen=True)
class PlanCost:
    """One plan.

    Args:
        entry: which.
        built: what its process took.
        attentions: attention layers that the audit has counted in its network.
        foretold: bytes of memory it was said to take.
        size: of its file, bytes.
    """

    entry: PlanEntry
    built: Built
    attentions: int
    foretold: int
    size: int


def measure_plans(
    config: ModelConfig,
    modules: Mapping[str, Tensors],
    formats: Precisions,
    sizes: Sizes,
    targets: Sequence[str],
    folder: Path,
    stages: Sequence[str] = (),
    stand_ins: bool = False,
) -> list[PlanCost]:
    """Build plans one after the other; none is kept.

    Args:
        config: the model's dimensions.
        modules: its weights.
        formats: what stages compute in and store.
        sizes: what the plans are to hold.
        targets: architectures.
        folder: where there is room for a graph and its plan.
        stages: only these; all if none are named.
        stand_ins: with random weights as they are stored: sizes whose quantisation would take hours.

    Raises:
        SettingError: there is no such stage.
        Omni2Error: a plan cannot be built.
    """
    library = check_buildable(tuple(targets))
    specs = {spec.stage: spec for spec in plan_specs(config, modules, formats, sizes)}
    for stage in stages:
        if stage not in specs:
            raise SettingError(f"there is no plan {stage!r}", f"use some of {', '.join(specs)}")
    chosen = [spec for name, spec in specs.items() if not stages or name in stages]
    if stand_ins:
        chosen = [replace(spec, graph=StandInGraph(**vars(spec.graph))) for spec in chosen]
    took: list[Built] = []
    costs = []
    with tempfile.TemporaryDirectory(dir=folder) as place, GraphScratch(Path(place) / "graph") as scratch:
        here = Path(place)
        for plan in make_plan_stages(
            config,
            {module: [] for module in modules},
            chosen,
            targets,
            library,
            scratch,
            lambda target: here / f"{target}.timings",
            lambda _, built: took.append(built),
        ):
            plan.write(here, lambda size: None)
            file = here / plan.entry.file
            attentions = plan.spec.expected.attentions
            costs.append(PlanCost(plan.entry, took[-1], attentions, plan.memory, file.stat().st_size))
            file.unlink()
            file.parent.rmdir()
    return costs


def main(
    size: Annotated[str, typer.Option(help="of the random weights")],
    target: Annotated[str, typer.Option(help="architectures, separated by commas")] = "sm89",
    precision: Annotated[str, typer.Option(help="as of `omni2-engine build` for a GPU")] = "balanced",
    stage: Annotated[str, typer.Option(help="only these plans, separated by commas")] = "",
    sessions: Annotated[int, typer.Option(help="conversations decoded in one call")] = 8,
    structure: Annotated[bool, typer.Option("--structure", help="random weights as they are stored")] = False,
    limit: Annotated[float, typer.Option(help="GB of memory that none may exceed")] = 8.0,
) -> None:
    """Build plans, print a table, and exit with 1 if one took more memory than the limit. Needs no GPU."""
    config, modules = random_modules(dimensions_of(size, None))
    formats, targets = parse_precision(precision, GPU), parse_targets(target).gpus
    stages = [name.strip() for name in stage.split(",") if name.strip()]
    with tempfile.TemporaryDirectory() as folder:
        costs = measure_plans(config, modules, formats, Sizes(sessions), targets, Path(folder), stages, structure)
    typer.echo(table(["plan", "target", "precision", *COUNTED, ""], [_row(cost, limit) for cost in costs]))
    raise typer.Exit(0 if all(within(cost, limit) for cost in costs) else 1)


def within(cost: PlanCost, limit: float) -> bool:
    """Whether a plan took no more memory than `limit` GB."""
    return cost.built.memory <= limit * 1e9


def _row(cost: PlanCost, limit: float) -> list[str]:
    entry, built = cost.entry, cost.built
    return [
        entry.stage,
        entry.target,
        entry.precision,
        str(built.layers),
        str(cost.attentions),
        f"{cost.size / 1e6:,.1f} MB",
        f"{built.parsed:.1f} + {built.built:.1f} s",
        f"{built.memory / 1e9:.2f} GB",
        f"{cost.foretold / 1e9:.2f} GB",
        "within" if within(cost, limit) else f"over {limit:g} GB",
    ]


if __name__ == "__main__":
    typer.run(main)
