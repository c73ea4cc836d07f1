"""The kernels that TensorRT's builder makes of every plan: how many of a call, by kind, what they only move.

Released widths with as few layers as tell what one adds: a plan of two layers and one of three.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from omni2_bench.common.models import dimensions_of
from omni2_bench.common.results import table
from omni2_bench.lab.plans import measure_plans
from omni2_bench.lab.random_weights import random_modules
from omni2_engine.model.manifest import PREFILL_SUFFIX
from omni2_engine.stages.encoder_tail import ENCODER_TAIL
from omni2_export.build.precision import GPU, parse_precision
from omni2_export.tensorrt.lowered import Lowered
from omni2_export.tensorrt.shapes import Sizes
from omni2_export.tensorrt.targets import parse_targets

LAYERED = ("encoder", ENCODER_TAIL, "llm", "llm_prefill", "speech_lm")  # plans whose kernels go with their layers
PLANS = (
    *("log_mel", "encoder", ENCODER_TAIL, "llm", "fusion", "speech_lm", "flow_conditions"),
    *("first_flow_encoder", "first_flow_step", "flow_encoder", "flow_step", "vocoder"),
)
MODULES = {ENCODER_TAIL: "encoder"}  # whose layers a plan has, where it is named otherwise
FEW, MORE = 2, 3  # layers


@dataclass(frozen=True)
class PlanKernels:
    """The kernels of one plan's call.

    Args:
        plan: its name.
        few: of the plan, or of one with `FEW` layers.
        more: of one with `MORE` layers; None where there are none.
    """

    plan: str
    few: Lowered
    more: Lowered | None

    def count(self, layers: int) -> int:
        """Kernels of a plan with this number of layers."""
        return self.few.kernels + (layers - FEW) * self.per_layer if self.more else self.few.kernels

    @property
    def per_layer(self) -> int:
        """Kernels that a layer adds."""
        return self.more.kernels - self.few.kernels if self.more else 0

    @property
    def fixed(self) -> int:
        """Kernels of a call beside its layers."""
        return self.few.kernels - FEW * self.per_layer


def count_kernels(size: str, precision: str, target: str, sessions: int, plans: Sequence[str]) -> Iterator[PlanKernels]:
    """Build plans, one after the other, and count.

    Args:
        size: of the random weights.
        precision: as of `omni2-engine build` for a GPU.
        target: an architecture, such as "sm89".
        sessions: conversations decoded in one call.
        plans: some of `PLANS`, or "llm_prefill" where the precision has it.

    Raises:
        SettingError: there is no such size, precision, target or plan.
        Omni2Error: a plan cannot be built.
    """
    formats, targets = parse_precision(precision, GPU).loaded_with("tail"), parse_targets(target).gpus
    whole = dimensions_of(size, None)

    def built(plan: str, layers: int | None) -> Lowered:
        model = MODULES.get(plan, plan.removesuffix(PREFILL_SUFFIX))
        config, modules = random_modules(whole.changed(**{model: {"layers": layers}}) if layers else whole)
        with tempfile.TemporaryDirectory() as folder:
            costs = measure_plans(config, modules, formats, Sizes(sessions), targets, Path(folder), [plan], True)
        return costs[0].built.lowered

    for plan in plans:
        if plan in LAYERED:
            yield PlanKernels(plan, built(plan, FEW), built(plan, MORE))
        else:
            yield PlanKernels(plan, built(plan, None), None)


def report(found: Sequence[PlanKernels]) -> str:
    """A table: kernels of a call and of a layer, by kind, those that only move, those that copy caches."""
    rows = []
    for counted in found:
        shown = counted.few
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(shown.kinds.items(), key=lambda kind: -kind[1]))
        name = f"{counted.plan}, {FEW} layers" if counted.more else counted.plan
        layers = f"{counted.fixed} + {counted.per_layer} a layer" if counted.more else ""
        moved = [str(number) for number in (shown.moves, shown.cache_copies, len(shown.expanded))]
        rows.append([name, str(shown.kernels), layers, *moved, kinds])
    header = [
        "plan",
        "kernels of a call",
        "",
        "that only move",
        "of them copies of caches",
        "weights written out",
        "by kind",
    ]
    return table(header, rows)
