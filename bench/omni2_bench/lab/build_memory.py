"""Anonymous memory and time of every stage of a build, and the bound that lets a 7B model build on 24 GB.

python -m omni2_bench.lab.build_memory --size 0.5B --voice voice.wav --out engine
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from omni2_bench.common.machine import memory
from omni2_bench.common.models import released_model
from omni2_bench.common.results import table
from omni2_bench.common.watch import watching
from omni2_export.build import BuildRequest, build_engine
from omni2_export.build.precision import parse_precision
from omni2_export.checkpoint import Checkpoint

FIXED = 1.5 * 2**30  # bytes a stage may take beside its tensors
LOOK_EVERY = 0.01  # seconds
STAGE_MODULES = {
    "llm_table": "llm",
    "speech_lm_table": "speech_lm",
    "flow_encoder": "flow",
    "flow_conditions": "flow",
    "flow_step": "flow",
}


@dataclass(frozen=True)
class StageCost:
    """One stage: seconds, bytes of RssAnon at the highest beyond those before the build, bytes written, and the bound,
    2 × its largest tensor in fp32 + 1.5 GiB."""

    name: str
    seconds: float
    peak: int
    written: int
    bound: float


class _Watch:
    """Follows a build (see `omni2_export.build.run.Progress`), whose memory `look` looks at."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.costs: list[StageCost] = []
        self._began = 0.0
        self._peak = 0
        self._written = 0
        self._before = memory().get("RssAnon", 0)

    def plan(self, stages: list[tuple[str, int]]) -> None:
        """See `Progress`."""

    def begin(self, stage: str) -> None:
        """See `Progress`."""
        self._began, self._written, self._peak = time.perf_counter(), 0, 0

    def advance(self, stage: str, size: int) -> None:
        """See `Progress`."""
        self._written += size

    def end(self, stage: str, reused: bool) -> None:
        """See `Progress`."""
        if not reused:
            seconds = time.perf_counter() - self._began
            self.costs.append(StageCost(stage, seconds, self._peak, self._written, self._bound(stage)))

    def say(self, sentence: str) -> None:
        """See `Progress`."""

    def look(self) -> None:
        """See how much this process holds."""
        self._peak = max(self._peak, memory().get("RssAnon", 0) - self._before)

    def _bound(self, stage: str) -> float:
        tensors = self._checkpoint.modules.get(STAGE_MODULES.get(stage, stage))
        sizes = [4 * np.prod(tensors.shape(name)) for name in tensors.names()] if tensors else [0]
        return float(2 * max(sizes) + FIXED)


def measure_build(request: BuildRequest) -> list[StageCost]:
    """Build and watch.

    Args:
        request: what to build; stages that are there already are not measured.
    """
    watch = _Watch(request.checkpoint)
    with watching(watch.look, LOOK_EVERY):
        build_engine(request, watch)
    return watch.costs


def main(
    size: Annotated[str, typer.Option(help="of the random checkpoint")],
    voice: Annotated[Path, typer.Option(help="recording of a voice")],
    out: Annotated[Path, typer.Option(help="engine directory to make; stages that are there already are not measured")],
    precision: Annotated[str, typer.Option(help="as of `omni2-engine build`")] = "balanced",
) -> None:
    """Build, and print a table."""
    request = BuildRequest(released_model(size).open(), out, [voice], parse_precision(precision))
    rows = [
        [
            cost.name,
            f"{cost.seconds:.1f} s",
            *(f"{size / 2**20:.0f} MiB" for size in (cost.written, cost.peak, cost.bound)),
            "within" if cost.peak <= cost.bound else "over",
        ]
        for cost in measure_build(request)
    ]
    typer.echo(table(["stage", "time", "written", "peak RssAnon", "bound", ""], rows))


if __name__ == "__main__":
    typer.run(main)
