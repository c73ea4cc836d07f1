"""The C++ tests, built and run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ..make import FLAGS, folder_of, make
from ..waiting import SOON

HERE = Path(__file__).resolve().parent
PROGRAMS = sorted(source.stem for source in HERE.glob("test_*.cpp"))
CUDA_INCLUDE = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "include")


@pytest.fixture(scope="module")
def build() -> Path:
    """The folder of the built programs and the stand-in libcudart."""
    return make("cpp", "all", "-j2")


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program: str, build: Path) -> None:
    run = subprocess.run([build / program], capture_output=True, text=True, timeout=SOON)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", FLAGS)
def test_objects_of_other_flags_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho version 1\n")
    compiler.chmod(0o755)
    for each in FLAGS:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv("CXX", str(compiler))
    before = folder_of("cpp")
    assert folder_of("cpp") == before != folder_of("kernels")
    monkeypatch.setenv(name, f"{compiler} -m64" if name == "CXX" else "-O3")
    other = folder_of("cpp")
    compiler.write_text("#!/bin/sh\necho version 2\n")
    assert len({before, other, folder_of("cpp")}) == 3


def test_cuda_is_declared_as_in_its_header() -> None:
    if not (CUDA_INCLUDE / "cuda_runtime_api.h").is_file():
        pytest.skip(f"no cuda_runtime_api.h in {CUDA_INCLUDE}; set CUDA_HOME to run this test")
    make("cpp", "declarations", f"CUDA_INCLUDE={CUDA_INCLUDE}")
