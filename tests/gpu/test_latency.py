"""`bench latency` on the device: a scripted turn timed by its clock; on a GPU the whole benchmark, short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_bench.latency.engine_turn import run as run_turn
from omni2_bench.latency.record import GROUPS
from omni2_bench.latency.turn import TurnRequest
from omni2_engine.backends import select
from omni2_engine.cli.app import run

from .rig import Rig

CHUNKS = 3


@pytest.fixture
def device_name(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `--device` is told; where the device is a stand-in, what opens the GPU opens that."""
    backend = rig.make_backend(True)
    if rig.name == "stand-in":
        monkeypatch.setattr("omni2_engine.backends.tensorrt.backend.find_tensorrt", lambda: backend.library)
        monkeypatch.setattr("omni2_engine.backends.tensorrt.backend.open_device", rig.open_device)
    return select.Device.TENSORRT if backend.name == "tensorrt" else select.Device.CUDA


def test_a_scripted_turn_is_timed_by_the_device(
    rig: Rig, device_name: str, question: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    request = TurnRequest("engine", str(rig.engine), str(question), str(tmp_path / "answer.npy"), 1, CHUNKS)
    on_cpu = run_turn(request)
    found = run_turn(TurnRequest(**{**request.__dict__, "device": device_name}))
    assert found.place.startswith("GPU") and on_cpu.place == "CPU" and not on_cpu.calls
    assert found.durations == on_cpu.durations and len(np.load(request.pcm)) == round(sum(found.durations) * 24_000)
    config = rig.directory.manifest.model
    assert set(found.calls) <= {graph for graphs, _ in GROUPS.values() for graph in graphs}  # none goes uncounted
    # a short answer has only a turn's first units, whose encoder and steps are one piece of work for plans
    flow = "first_flow_step" if device_name == select.Device.TENSORRT else "flow_encoder"
    for graph in ("encoder", "llm", "speech_lm", flow, "vocoder"):
        assert found.calls[graph] and all(0 <= seconds < found.finished for seconds in found.calls[graph]), graph
        assert all(found.calls[graph]) or not pytestconfig.getoption("gpu")  # a stand-in's clock stands still
    # a step for every token but the first of a write, which its prefill makes
    assert len(found.calls["speech_lm"]) >= (config.write - 1) * len(found.calls["fusion"])


def test_the_benchmark(found_gpu: Any, question: Path, tmp_path: Path) -> None:
    """The table that a report should hold."""
    if found_gpu is None:
        pytest.skip("the benchmark starts processes of its own, which have no stand-in; run it with make test-gpu")
    options = {"size": "tiny", "audio": question, "out": tmp_path / "out", "rounds": 1, "chunks": 15}
    options |= {"device": found_gpu[1], "precision": "exact" if found_gpu[1] == "cuda" else "balanced,fast"}
    options |= {"cache": tmp_path / "cache"}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    assert run(["bench", "latency", *arguments]) == 0
    print((tmp_path / "out" / "latency.md").read_text())
