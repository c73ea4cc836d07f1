"""A flow step for several sessions against the one for a single session: the same sums over the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from omni2_bench.random_checkpoint import PRESETS, CheckpointPaths, write_checkpoint
from omni2_engine.backends.base import Graph
from omni2_engine.backends.onnxruntime import OnnxRuntimeBackend
from omni2_export.build.graphs import GraphSpec, graph_specs
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.graphs.builder import Numerics
from omni2_export.graphs.linear import Precision

CAPACITY = 60
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def released_width(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """As wide as the released flow, which decides what kernels run, but with fewer layers."""
    small = PRESETS["tiny"].changed(estimator={"width": 256, "heads": 8, "head_dim": 64, "mid_blocks": 1})
    paths = write_checkpoint(tmp_path_factory.mktemp("wide"), small, seed=2)
    return open_checkpoint(paths.model, decoder=paths.decoder)


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: CheckpointPaths) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)


def write(checkpoint: Checkpoint, folder: Path, numerics: Numerics | None = None) -> tuple[GraphSpec, GraphSpec]:
    specs = graph_specs(checkpoint.config, checkpoint.modules)
    solo, shared = specs["flow_step"], specs["flow_step_shared"]
    solo.write(folder, Precision.FP32, numerics, {"capacity": CAPACITY}, beside=[shared])
    return solo, shared


def test_one_weight_file_serves_both(tiny: Checkpoint, tmp_path: Path) -> None:
    write(tiny, tmp_path)
    files = {"flow_step.onnx", "flow_step.weights", "flow_step_shared.onnx"}
    assert {path.name for path in tmp_path.iterdir()} == files
    alone, together = (
        onnx.load(tmp_path / f"{name}.onnx", load_external_data=False) for name in ("flow_step", "flow_step_shared")
    )

    def stored(model: onnx.ModelProto) -> dict[str, list[tuple[str, str]]]:
        return {
            weight.name: [(entry.key, entry.value) for entry in weight.external_data]
            for weight in model.graph.initializer
            if weight.external_data
        }

    assert stored(alone) == stored(together) and stored(alone)


def test_a_scale_of_one_call_cannot_be_shared(tiny: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one scale per call"):
        graph_specs(tiny.config, tiny.modules)["flow_step_shared"].write(tmp_path, Precision.DYNAMIC)


def some_inputs(solo: Graph, frames: int, seen: int, random: np.random.Generator) -> Arrays:
    """A call of one session whose caches hold `seen` frames already."""
    stop = seen + frames
    inputs: Arrays = {}
    for name, shape in solo.inputs.items():
        if name in ("shifts", "dt"):
            continue
        given: dict[Any, int] = {"t": frames, "T": stop}
        inputs[name] = random.standard_normal([given.get(size, size) for size in shape]).astype(np.float32)
    inputs["mask"] = random.random((1, 1, frames, stop)) < 0.7
    inputs["mask"][..., seen:] |= np.eye(frames, dtype=bool)
    inputs["write"] = np.array([seen], np.int64)
    inputs["commit"] = np.array([random.integers(0, frames + 1)], np.int64)
    return inputs


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("which", ["tiny", "released_width"])
@pytest.mark.parametrize("device", [False, True])
def test_each_gets_what_it_gets_alone(
    request: pytest.FixtureRequest, tmp_path: Path, which: str, device: bool, threads: int
) -> None:
    """To the bit, caches and contexts included, whatever company it has; in the layouts of CPU and GPU."""
    random, backend = np.random.default_rng(threads), OnnxRuntimeBackend(threads)
    checkpoint = request.getfixturevalue(which)
    write(checkpoint, tmp_path, Numerics(doubles=False, device=True) if device else None)
    solo, shared = (backend.load(tmp_path / f"{name}.onnx") for name in ("flow_step", "flow_step_shared"))
    common = {
        "shifts": random.standard_normal([size for size in solo.inputs["shifts"]]).astype(np.float32),
        "dt": np.array([0.1], np.float32),
    }
    for lengths in ([14, 14, 14, 14], [1, 34, 2, 7], [40, 1, 1, 1], [5, 12, 33, 27]):
        parts = [
            some_inputs(solo, frames, int(random.integers(0, CAPACITY - frames + 1)), random) for frames in lengths
        ]
        placed = {f"{name}.{place}": array for place, part in enumerate(parts) for name, array in part.items()}
        together = shared.run({**common, **placed})
        for place, part in enumerate(parts):
            for name, array in solo.run({**common, **part}).items():
                assert np.array_equal(together[f"{name}.{place}"], array), (lengths, place, name)
