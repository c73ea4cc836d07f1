"""The C++ tests, built and run; and whether Python is told rightly if there is CUDA."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from omni2_engine._core import cuda_available

HERE = Path(__file__).resolve().parent
PROGRAMS = sorted(source.stem for source in HERE.glob("test_*.cpp"))
CUDA_INCLUDE = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "include")


def make(*arguments: str) -> None:
    """Run make in this folder; what it says is the assertion's message."""
    run = subprocess.run(["make", "-C", str(HERE), *arguments], capture_output=True, text=True, timeout=580)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built programs and the stand-in libcudart."""
    if not shutil.which("make") or not shutil.which(os.environ.get("CXX", "g++")):
        pytest.skip("needs make and a C++17 compiler; install g++ and make to run this test")
    folder = tmp_path_factory.mktemp("cpp")
    make("all", f"BUILD={folder}", "-j2")
    return folder


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program: str, build: Path) -> None:
    run = subprocess.run([build / program], capture_output=True, text=True, timeout=580)
    assert run.returncode == 0, run.stdout + run.stderr


def test_cuda_is_declared_as_in_its_header() -> None:
    if not (CUDA_INCLUDE / "cuda_runtime_api.h").is_file():
        pytest.skip(f"no cuda_runtime_api.h in {CUDA_INCLUDE}; set CUDA_HOME to run this test")
    make("declarations", f"CUDA_INCLUDE={CUDA_INCLUDE}")


def test_cuda_is_there_with_the_stand_in(build: Path) -> None:
    assert cuda_available(str(build / "libfake_cudart.so")) is None


def test_why_cuda_is_not_there() -> None:
    reason = cuda_available("/nowhere/libcudart.so")
    assert reason is not None
    assert "/nowhere/libcudart.so" in reason
    assert "OMNI2_CUDART" in reason


def test_the_environment_names_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI2_CUDART", "/elsewhere/libcudart.so")
    assert "/elsewhere/libcudart.so" in (cuda_available() or "")
