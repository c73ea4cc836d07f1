"""The C++ tests, built and run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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
