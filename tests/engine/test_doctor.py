"""`omni2-engine doctor`: which ONNX Runtime, GPU and TensorRT there are, and whether an engine's plans are for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import typer
from typer.testing import CliRunner

from omni2_engine._core import processor_instructions
from omni2_engine.backends.tensorrt.library import MAINLINE, TensorRt
from omni2_engine.cli import doctor
from omni2_engine.errors import BackendError
from omni2_engine.model.manifest import MANIFEST, Manifest, PlanEntry

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command: (exit status, what it says)."""
    app = typer.Typer()
    doctor.register(app)
    monkeypatch.setattr(doctor, "find_tensorrt", lambda: TensorRt(None, MAINLINE, "10.9", None))

    def runs(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return runs


@pytest.fixture
def gpu(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GPU that is none, found as a real one is."""
    monkeypatch.setenv("OMNI2_CUDART", fake_cuda.path)
    return fake_cuda


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    class Named(Distribution):
        def __init__(self, name: str) -> None:
            self._name = name

        def read_text(self, filename: str) -> str | None:
            return f"Name: {self._name}\nVersion: 1\n" if filename == "METADATA" else None

        def locate_file(self, path: Any) -> Path:
            return Path(path)

    monkeypatch.setattr(doctor, "distributions", lambda: [Named(name) for name in names])


def test_a_machine_without_a_gpu_hears_of_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI2_CUDART", "/nowhere/libcudart.so")
    monkeypatch.setattr(doctor, "_nvidia", lambda _: False)
    status, said = run()
    lines = said.splitlines()
    assert status == 0 and lines[0] == "yes: this machine can run engines on the CPU"
    assert [line for line in lines if re.search("gpu|cuda|tensorrt", line, re.IGNORECASE)] == [doctor.NO_GPU]


def test_programs_are_told_the_same(run: Run, planned: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI2_CUDART", "/nowhere/libcudart.so")
    for arguments, healthy in (((), True), ((planned(graphs=False),), False)):
        status, said = run(*arguments, "--json")
        told = json.loads(said)
        assert told["runs"] is healthy and status == (0 if healthy else 1)
        assert set(told) == {"schema_version", "omni2_engine", "python", "platform", "runs", "findings"}
        assert all(set(finding) == {"about", "line", "remedy", "wrong"} for finding in told["findings"])
        abouts = [finding["about"] for finding in told["findings"]]
        assert abouts[0] == "verdict" and {"processors", "onnxruntime", "gpu"} <= set(abouts)


def test_a_gpu_that_cannot_be_used_is_told_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI2_CUDART", "/nowhere/libcudart.so")
    monkeypatch.setattr(doctor, "_nvidia", lambda _: True)
    status, said = run()
    assert status == 0
    assert f"ONNX Runtime {ort.__version__} (onnxruntime)" in said
    assert "libcudart: /nowhere/libcudart.so; driver (libcuda.so.1):" in said
    assert "no GPU can be used: CUDA's runtime library cannot be loaded" in said and "try: install CUDA" in said
    assert "TensorRT: tensorrt 10.9" in said


@pytest.mark.parametrize(
    ("instructions", "saturates", "said"),
    [
        (["avx2"], True, "int8: AVX2 without VNNI; its products would saturate, so exact ones are asked for"),
        (["avx2", "avx512f"], True, "int8: AVX-512 without VNNI; its products would saturate"),
        (["avx2", "avx_vnni"], False, "int8: AVX-VNNI; products are exact\n  a layer of an encoder takes 0.32 of"),
        (["avx2", "avx512f", "avx512_vnni"], False, "int8: AVX-512 VNNI; products are exact\n"),
        (["avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8"], False, "int8: AMX; products are exact\n"),
        (["asimddp"], False, "int8: ARM's dot products; products are exact\nONNX Runtime"),  # not measured
        ([], False, "int8: no instructions for it; products are exact\n"),
    ],
)
def test_the_int8_kernel_and_its_cost_are_said(
    instructions: list[str], saturates: bool, said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "processor_instructions", lambda: instructions)
    monkeypatch.setattr(doctor, "products_saturate", lambda: saturates)
    assert said in run()[1]


def test_instructions_are_those_linux_lists(run: Run) -> None:
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        pytest.skip("no /proc/cpuinfo to compare with: run this on Linux")
    known = {instruction for instruction, _, _ in doctor.INT8_KERNELS}
    assert set(processor_instructions()) == known & words
    assert all(instruction in run()[1] for instruction in known & words)


def test_a_gpu_is_described(run: Run, gpu: Any) -> None:
    gpu.set_capability(9, 0)
    status, said = run()
    assert status == 0
    assert said.startswith("yes: this machine can run engines on the CPU and on the GPU\n")
    assert f"CUDA 13.0 ({gpu.path})" in said
    assert "GPU a device that is none, sm90, 8.0 of 8.0 GiB free, driver for CUDA 13.0" in said
    assert "`make test-gpu`" in said
    assert "it is the build for CPUs, and there is a GPU" in said
    assert "OMNI2_ONNXRUNTIME=onnxruntime-gpu pip install" in said


def test_two_builds_of_onnx_runtime_are_a_fault(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime", "onnxruntime_gpu", "numpy")
    status, said = run()
    assert status == 1
    assert "(onnxruntime, onnxruntime-gpu)" in said
    assert "overwrite each other" in said and "pip uninstall -y onnxruntime onnxruntime-gpu" in said


def test_tensorrt_that_is_not_there_is_said(run: Run, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> TensorRt:
        raise BackendError("TensorRT is not installed", "install it with pip")

    monkeypatch.setattr(doctor, "find_tensorrt", missing)
    status, said = run()
    assert status == 0 and "TensorRT is not installed\n  try: install it with pip" in said


@pytest.fixture
def planned(tiny_engine_dir: Path, tmp_path: Path) -> Callable[..., Path]:
    """The tiny engine, whose manifest says that it has a plan for sm89."""
    folder = tmp_path / "engine"
    folder.mkdir()

    def made(graphs: bool = True) -> Path:
        for item in tiny_engine_dir.iterdir():
            if item.is_dir() and (graphs or item.name != "graphs"):
                (folder / item.name).symlink_to(item)
        manifest = Manifest.model_validate_json((tiny_engine_dir / MANIFEST).read_text())
        entry = PlanEntry(stage="llm", target="sm89", flavour=MAINLINE, version="10.9", precision="bf16", dimensions={})
        files = {name: file for name, file in manifest.files.items() if graphs or not name.startswith("graphs/")}
        changed = manifest.model_copy(update={"plans": (entry,), "files": files, "targets": ("sm89",)})
        (folder / MANIFEST).write_text(changed.model_dump_json())
        return folder

    return made


def test_an_engine_whose_plans_fit_is_told_so(run: Run, gpu: Any, planned: Callable[..., Path]) -> None:
    status, said = run(planned())
    assert status == 0
    assert "its graphs run on the CPU\n" in said and "its plans are for this GPU and this TensorRT" in said


@pytest.mark.parametrize("encoder", ["fp32", "int8"])
def test_graphs_that_the_cuda_provider_refuses_are_said(
    run: Run, gpu: Any, planned: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    engine = planned()
    manifest = Manifest.model_validate_json((engine / MANIFEST).read_text())
    changed = manifest.model_copy(update={"precision": {**manifest.precision, "encoder": encoder}})
    (engine / MANIFEST).write_text(changed.model_dump_json())
    status, said = run(engine)
    assert status == 0
    assert ("its graphs run on the CPU and on the GPU\n" in said) == (encoder == "fp32")
    assert ("does not take them" in said and "--precision balanced,encoder=fp32" in said) == (encoder == "int8")


def test_plans_for_another_gpu_are_only_a_fault_where_nothing_else_runs(
    run: Run, gpu: Any, planned: Callable[..., Path], tmp_path: Path
) -> None:
    gpu.set_capability(8, 6)
    status, said = run(planned())
    assert status == 0
    assert "its plans cannot run here:" in said and "sm86" in said and "--target sm86" in said


def test_an_engine_of_plans_alone_needs_its_gpu(run: Run, gpu: Any, planned: Callable[..., Path]) -> None:
    engine = planned(graphs=False)
    assert run(engine)[0] == 0
    gpu.set_devices(0)
    status, said = run(engine)
    assert status == 1 and "its plans cannot run here: there is no CUDA device" in said
    assert said.startswith("no: its plans cannot run here")
