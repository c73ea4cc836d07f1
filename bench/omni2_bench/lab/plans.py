"""What TensorRT plans take to build: size, time and memory of each, held to a limit of memory."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from rich.table import Table

from omni2_bench.random_checkpoint import Dimensions
from omni2_engine.config import ModelConfig, TokenConfig
from omni2_engine.errors import SettingError
from omni2_engine.manifest import PlanEntry
from omni2_export.build.graphs import GraphSpec
from omni2_export.build.precision import Precisions
from omni2_export.checkpoint.names import expected_shapes
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.graphs.builder import GraphBuilder
from omni2_export.tensorrt.plans import plan_specs
from omni2_export.tensorrt.scratch import GraphScratch
from omni2_export.tensorrt.shapes import Sizes
from omni2_export.tensorrt.stages import make_plan_stages
from omni2_export.tensorrt.targets import check_buildable
from omni2_export.tensorrt.worker import Built

POOL = 1 << 22  # random numbers that stand-in weights are cut from


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


class RandomTensors:
    """Tensors of random numbers in the size of real ones that take no room on a disk; see `Tensors`."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self._pool = np.random.default_rng(0).standard_normal(POOL, np.float32)

    def names(self) -> list[str]:
        """See `Tensors`."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Tensors`."""
        return self._shapes[name]

    def dtype(self, name: str) -> np.dtype:
        """See `Tensors`."""
        return np.dtype(np.float32)

    def read(self, name: str) -> np.ndarray:
        """See `Tensors`."""
        return self.rows(name, 0, self._shapes[name][0])

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """See `Tensors`."""
        width = int(np.prod(self._shapes[name][1:], dtype=np.int64))
        first = (zlib.crc32(name.encode()) + start * width) % POOL
        flat = np.take(self._pool, np.arange(first, first + (stop - start) * width), mode="wrap")
        return (flat / np.float32(np.sqrt(width))).reshape(stop - start, *self._shapes[name][1:])


def random_modules(dimensions: Dimensions) -> tuple[ModelConfig, dict[str, Tensors]]:
    """A model of these dimensions whose weights are random and nowhere on a disk."""
    no_tokens = TokenConfig(eos=(), repetition_penalty=1.0, speech=0, sep=0, speech_eos=0)
    config = dimensions.model_config(no_tokens)
    return config, {module: RandomTensors(shapes) for module, shapes in expected_shapes(config).items()}


class StandInBuilder(GraphBuilder):
    """Fills weight files with random numbers as they are stored, quantised ones too: nothing is computed for them.

    They differ from tensor to tensor, since TensorRT keeps equal weights once.
    """

    def stored(
        self, name: str, dtype: ir.DataType, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]
    ) -> ir.Value:
        """See `GraphBuilder.stored`."""
        generator = np.random.default_rng(zlib.crc32(name.encode()))

        def draw(view: np.ndarray) -> None:
            flat = view.reshape(-1)
            for start in range(0, len(flat), POOL):
                piece = flat[start : start + POOL]
                if np.issubdtype(view.dtype, np.integer):
                    piece.view(np.uint8)[...] = np.frombuffer(generator.bytes(piece.nbytes), np.uint8)
                else:
                    piece[...] = generator.uniform(0.001, 0.05, len(piece))  # as scales too these will do

        return super().stored(name, dtype, shape, draw)


class StandInGraph(GraphSpec):
    """A graph of random weights that were never numbers of a model."""

    builder = StandInBuilder


def measure_plans(
    config: ModelConfig,
    modules: Mapping[str, Tensors],
    formats: Precisions,
    sizes: Sizes,
    targets: Sequence[str],
    folder: Path,
    stages: Sequence[str] = (),
    stand_ins: bool = False,
    say: Callable[[str], None] = lambda _: None,
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
        say: told what is being built.

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
            say(f"building {plan.name}, {plan.entry.precision}")
            plan.write(here, lambda size: None)
            file = here / plan.entry.file
            attentions = plan.spec.expected.attentions
            costs.append(PlanCost(plan.entry, took[-1], attentions, plan.memory, file.stat().st_size))
            file.unlink()
            file.parent.rmdir()
    return costs


def table(costs: Sequence[PlanCost], limit: float) -> Table:
    """The costs as a table for the terminal; `limit` is of memory, in GB."""
    counted = ("layers", "attentions", "size", "parse + build", "peak memory", "foretold")
    result = Table("plan", "target", "precision", *counted, "", title="building plans")
    for cost in costs:
        entry, built = cost.entry, cost.built
        result.add_row(
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
        )
    return result


def within(cost: PlanCost, limit: float) -> bool:
    """Whether a plan took no more memory than `limit` GB."""
    return cost.built.memory <= limit * 1e9
