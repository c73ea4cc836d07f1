"""Every plan against the float32 graph of the same stage on the CPU: what is left of the signal must be enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omni2_bench.lab.probes import QUESTIONS, Material, ProbeRow
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.stages.encoder_tail import DEVICE_SPEECH, EncoderTail, TailedEncoder
from omni2_export.checkpoint import Checkpoint
from omni2_export.verify.rows import snr

from .rig import Rig, threads

STAGES = [question for question in QUESTIONS if question.changed == (question.name,)]


class Opened(dict[str, Any]):
    """Graphs of an engine on the CPU, each loaded when it is first asked for."""

    def __init__(self, directory: EngineDirectory) -> None:
        super().__init__()
        self._directory, self._backend = directory, OnnxRuntimeBackend(threads())

    def __missing__(self, stage: str) -> Any:
        self[stage] = self._backend.open(self._directory, stage)
        return self[stage]


@pytest.fixture(scope="module")
def materials() -> dict[str, Material]:
    return {}


@pytest.fixture
def material(materials: dict[str, Material], rig: Rig, audio: np.ndarray) -> Material:
    """The same for every stage and preset: all of its inputs come from the float32 graphs of one engine."""
    if not materials:
        materials["one"] = Material(rig.checkpoint, Opened(rig.directory), audio, seed=0)
    return materials["one"]


@pytest.mark.parametrize("question", STAGES, ids=lambda question: question.name)
def test_a_plan_keeps_its_floor(
    question: ProbeRow,
    preset: str,
    material: Material,
    rigs: Any,
    random_checkpoint: Checkpoint,
) -> None:
    changed = rigs(random_checkpoint, preset)
    backend = changed.make_backend(True)
    floor = changed.floor(backend, question.name)
    for array, decibels in kept(question, material, backend.open(changed.directory, question.name)).items():
        print(f"{changed.name}: {question.name}: {array} keeps {decibels:.0f} dB, at least {floor:.0f}")
        assert decibels >= floor, f"{array} keeps {decibels:.1f} dB, and at least {floor:.1f} are asked"


def test_an_encoder_with_tails_keeps_the_encoders_floor(
    preset: str, material: Material, rigs: Any, random_checkpoint: Checkpoint
) -> None:
    """For three seconds of speech, of which the CPU computes as many positions; run as it is, and recorded."""
    changed = rigs(random_checkpoint, preset)
    backend, config = changed.make_backend(True), random_checkpoint.config.encoder
    tails = EncoderTail.load(changed.engine / "tables")
    device, cpu = (
        TailedEncoder(opened.open(changed.directory, "encoder_tail"), config, tails, np.array([], np.int64))
        for opened in (backend, OnnxRuntimeBackend(threads()))
    )
    log_mel, end = material.log_mel.copy(), 2 * DEVICE_SPEECH[0]
    log_mel[:, :, end:] = log_mel.min()
    log_mel[:, :, end - 1] = log_mel.max()
    expected, floor = cpu(log_mel).astype(np.float64), changed.floor(backend, "encoder")
    for _ in range(2):
        assert snr(device(log_mel).astype(np.float64), expected) >= floor


def test_a_plan_that_rounds_unasked_misses_its_floor(rig: Rig, material: Material) -> None:
    question = next(question for question in STAGES if question.name == "fusion")
    backend = rig.make_backend(True)
    plan = backend.open(rig.directory, question.name)
    assert max(kept(question, material, Rounding(plan)).values()) < rig.floor(backend, question.name)


def kept(question: ProbeRow, material: Material, graph: Any) -> dict[str, float]:
    """How many dB of each array are left where this graph is in the place of the float32 one; NaN: not finite."""
    expected = question.ask(material, material.graphs)
    found = question.ask(material, _Replaced(material.graphs, question.name, graph))
    assert expected and set(found) == set(expected)
    return {
        array: snr(found[array].astype(np.float64), values.astype(np.float64))
        if np.isfinite(found[array]).all()
        else float("nan")
        for array, values in expected.items()
    }


class Rounding:
    """A graph that computes its results to bfloat16's digits alone."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def __getattr__(self, name: str) -> Any:
        return getattr(self._graph, name)

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        results = self._graph.run(inputs)
        return {name: (array.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, array in results.items()}


class _Replaced(dict[str, Any]):
    """Graphs with another in one's place."""

    def __init__(self, graphs: Any, name: str, graph: Any) -> None:
        super().__init__({name: graph})
        self._others = graphs

    def __missing__(self, stage: str) -> Any:
        return self._others[stage]
