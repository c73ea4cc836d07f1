"""Which backend runs an engine: what is asked for, or the fastest that is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from omni2_engine import Engine
from omni2_engine.backends import select
from omni2_engine.backends.select import Device, select_backend
from omni2_engine.errors import BackendError, EngineDirectoryError, SettingError
from omni2_engine.model.manifest import EngineDirectory, PlanEntry


class Directory:
    """What is looked at of an engine directory."""

    def __init__(self, path: Path, graphs: bool, target: str | None) -> None:
        self.path, self._target = path, target
        self.graph = lambda stage: path / f"{stage}.onnx"
        if graphs:
            self.graph("llm").touch()
        self.precision: dict[str, str] = {}
        plans, targets = (target,) if target else (), (target or "cpu",)
        self.manifest = SimpleNamespace(plans=plans, targets=targets, precision=self.precision)

    def plan(self, stage: str, target: str, flavour: str, version: str) -> PlanEntry:
        if target != self._target:
            raise EngineDirectoryError(f"no plan of {stage} for {target}", f"--target {target}")
        return PlanEntry(stage=stage, target=target, flavour=flavour, version=version, precision="", dimensions={})


@pytest.fixture
def directory(tmp_path: Path) -> Callable[..., Any]:
    return lambda graphs=True, target=None: Directory(tmp_path, graphs, target)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, fake_cuda: Any, library: Any) -> Any:
    """A GPU and a TensorRT, found as real ones are."""
    monkeypatch.setenv("OMNI2_CUDART", fake_cuda.path)
    monkeypatch.setattr("omni2_engine.backends.tensorrt.backend.find_tensorrt", lambda: library)
    return fake_cuda


def name(directory: EngineDirectory, device: Device = Device.AUTO) -> str:
    return select_backend(directory, device, threads=1).name


def test_a_machine_without_a_gpu_runs_on_the_cpu(
    directory: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OMNI2_CUDART", "/nowhere/libcudart.so")
    monkeypatch.setattr("omni2_engine.backends.tensorrt.backend.find_tensorrt", lambda: library)
    with caplog.at_level(logging.INFO, "omni2_engine.backends"):
        assert name(directory(target="sm89")) == "onnxruntime"
    assert any("running on the CPU: CUDA's runtime library cannot be loaded" in line for line in caplog.messages)
    gpus_alone = directory(target="sm89")
    gpus_alone.graph("llm").unlink()
    with pytest.raises(BackendError, match="for GPUs alone, and CUDA's runtime library cannot be loaded"):
        name(gpus_alone)


def test_a_gpu_that_idles_is_worth_a_warning(
    gpu: Any, directory: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    gpu.set_capability(9, 0)
    assert name(directory(target="sm89")) == "onnxruntime"
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "no plan of llm for sm90" in warning.getMessage() and "no CUDA provider" in warning.getMessage()


def test_plans_for_the_gpu_come_first(gpu: Any, directory: Callable[..., Any]) -> None:
    assert name(directory(target="sm89")) == "tensorrt"
    assert name(directory(target="sm89"), Device.CPU) == "onnxruntime"


def test_a_gpu_without_plans_takes_what_onnx_runtime_has(
    gpu: Any, directory: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.set_capability(9, 0)
    assert name(directory(target="sm89")) == "onnxruntime"
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: None, raising=False)
    assert name(directory(target="sm89")) == name(directory()) == "onnxruntime-cuda"
    with pytest.raises(EngineDirectoryError, match="no plan of llm for sm90"):
        name(directory(target="sm89"), Device.TENSORRT)


def test_what_is_asked_for_and_not_there_is_an_error(gpu: Any, directory: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no CUDA provider"):
        name(directory(), Device.CUDA)
    gpu.set_devices(0)
    for device in (Device.CUDA, Device.TENSORRT):
        with pytest.raises(BackendError, match="there is no CUDA device"):
            name(directory(target="sm89"), device)
    (tmp_path / "llm.onnx").unlink()
    with pytest.raises(BackendError, match=r"only plans for sm89 — .*--target cpu"):
        name(directory(graphs=False, target="sm89"), Device.CPU)


def test_an_unknown_device_is_refused(tiny_engine_dir: Path) -> None:
    assert [*select.Device] == ["auto", "cpu", "cuda", "tensorrt"]
    with pytest.raises(SettingError, match="use one of auto, cpu, cuda, tensorrt"):
        Engine.load(tiny_engine_dir, device="tpu")
