"""A turn's first units without state: the same mel as with state, padded or not, in any order of arrival."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine import Engine
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.stages.flow import Flow
from omni2_engine.stages.flow_first import FEWEST_UNITS, FirstBlock
from omni2_export.build.graphs import first_block_specs
from omni2_export.checkpoint import open_checkpoint
from omni2_export.graphs.linear import Precision
from omni2_export.graphs.numerics import Numerics


@pytest.fixture(scope="module")
def engine(tiny_engine_dir: Path) -> Engine:
    return Engine.load(tiny_engine_dir, threads=1, warm_up=False)


@pytest.fixture(scope="module")
def flows(
    engine: Engine, tiny_checkpoint: CheckpointPaths, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Flow, Flow]:
    """With state from the first unit on, and without it until a block is finished."""
    folder, backend = tmp_path_factory.mktemp("first"), OnnxRuntimeBackend(1)
    checkpoint = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    specs = first_block_specs(checkpoint.config, checkpoint.modules)
    numerics = Numerics(doubles=False, device=True)
    first = [backend.load(spec.write(folder, Precision.FP32, numerics)) for spec in specs.values()]
    directory = engine.directory
    encoder, step, conditions = (
        backend.open(directory, name) for name in ("flow_encoder", "flow_step", "flow_conditions")
    )
    c, plain = checkpoint.config, engine.pipeline.decoder.flow
    made = Flow(encoder, step, conditions, c.flow_encoder, c.estimator, plain.noise, first=(first[0], first[1]))
    return plain, made


@pytest.mark.parametrize("schedule", [[10, 10, 20, 9, 1, 1, 3, 30], [4, 51], [FEWEST_UNITS, 21, 40], [60, 5]])
def test_the_mel_is_the_same(flows: tuple[Flow, Flow], engine: Engine, schedule: list[int]) -> None:
    voice, random = engine.voice_features(), np.random.default_rng(len(schedule))
    states = [flow.new_state(voice) for flow in flows]
    for call, count in enumerate(schedule):
        units = random.integers(0, engine.config.flow_encoder.units, count).tolist()
        expected, found = (
            flow.step(state, units, call == len(schedule) - 1) for flow, state in zip(flows, states, strict=True)
        )
        assert (found.start, found.new, found.mel.shape) == (expected.start, expected.new, expected.mel.shape)
        np.testing.assert_allclose(found.mel, expected.mel, atol=1e-4)


def test_state_is_touched_only_when_a_block_is_finished(
    flows: tuple[Flow, Flow], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, block = flows[1], engine.config.flow_encoder.block_units
    solved: list[int] = []
    solve: Callable[..., np.ndarray] = FirstBlock.solve

    def noted(first: FirstBlock, units: list[int], *more: object) -> np.ndarray:
        solved.append(len(units))
        return solve(first, units, *more)

    monkeypatch.setattr(FirstBlock, "solve", noted)
    state = flow.new_state(engine.voice_features())
    for _ in range(3 * block // 10):
        flow.step(state, [0] * 10, False)
    assert solved == list(range(10, block + 1, 10))
    assert any(np.any(context) for context in state.steps[0].contexts.values())
