"""Plans as stages of a build: resumable, reused while nothing they were made from has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omni2_engine.backends.tensorrt.library import TensorRt
from omni2_engine.model.config import ModelConfig
from omni2_engine.model.manifest import PlanEntry
from omni2_export.build.stages import BuildStage, OnBytes, file_identity, stage_key
from omni2_export.graphs.linear import Precision
from omni2_export.tensorrt.memory import building_memory
from omni2_export.tensorrt.plans import PlanSpec, check_formats
from omni2_export.tensorrt.process import have_built
from omni2_export.tensorrt.scratch import GraphScratch
from omni2_export.tensorrt.worker import Built, Order


@dataclass(frozen=True)
class PlanStage(BuildStage):
    """The stage that builds one plan for one target.

    Args:
        spec: the plan.
        entry: what the manifest says about it.
    """

    spec: PlanSpec
    entry: PlanEntry

    @property
    def memory(self) -> int:
        """Bytes of memory that building it takes, about."""
        packed = self.spec.storage in (Precision.INT4, Precision.MIXED)
        return building_memory(self.size, self.spec.expected.attentions, packed)


def make_plan_stages(
    config: ModelConfig,
    sources: Mapping[str, list[Path]],
    specs: Sequence[PlanSpec],
    targets: Sequence[str],
    library: TensorRt,
    scratch: GraphScratch,
    timing_cache: Callable[[str], Path],
    on_built: Callable[[PlanEntry, Built], None] = lambda entry, built: None,
) -> list[PlanStage]:
    """The stages that build every plan for every target, those of one graph one after the other.

    Args:
        config: the model's dimensions.
        sources: module → the files its weights are read from.
        specs: the plans.
        targets: architectures.
        library: that builds them; its version is part of what a plan is built from.
        scratch: holds the graph at work.
        timing_cache: gives the file that a target's timings are kept in, by mainline TensorRT.
        on_built: told what each plan took.

    Raises:
        SettingError: a plan is in a number format that a target does not have.
    """
    check_formats(specs, targets)

    def stage(spec: PlanSpec, target: str) -> PlanStage:
        entry = plan_entry(spec, target, library)

        def write(directory: Path, on_bytes: OnBytes) -> None:
            written = scratch.holds(spec)
            graph, facts = scratch.graph(spec, on_bytes)
            plan = directory / entry.file
            plan.parent.mkdir(parents=True)
            order = Order(
                graph=str(graph),
                plan=str(plan),
                target=target,
                profile=spec.space.profile(facts.inputs),
                expected=replace(spec.expected, islands=facts.islands, fp8=facts.fp8),
                timing_cache=str(timing_cache(target)),
            )
            on_built(entry, have_built(order))
            if written:  # nothing has been reported yet
                on_bytes(plan.stat().st_size)

        files = sources[spec.graph.module] if spec.graph.module else []
        key = stage_key(entry.model_dump(), config.model_dump(mode="json"), file_identity(files))
        return PlanStage(f"{spec.stage} {target}", key, spec.size, write, spec, entry)

    return [stage(spec, target) for spec in specs for target in targets]


def plan_entry(spec: PlanSpec, target: str, library: TensorRt) -> PlanEntry:
    """What the manifest says about a plan."""
    dimensions: dict[str, tuple[int, int, int]] = {name: (n, n, n) for name, n in spec.space.capacities.items()}
    dimensions |= {name: (*values,) for name, values in spec.space.ranges.items()}
    return PlanEntry(
        stage=spec.stage,
        target=target,
        flavour=library.flavour,
        version=library.version,
        precision=spec.precision,
        dimensions=dimensions,
    )
