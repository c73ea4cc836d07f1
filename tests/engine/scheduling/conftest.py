"""The scheduler on both runtimes: the host's, and CUDA's on the stand-in libcudart of `tests/cpp`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def fake_cudart(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in libcudart, built."""
    if not (shutil.which("make") and shutil.which("g++")):
        pytest.skip("the stand-in libcudart is built with make and g++; install them to run this test")
    build = tmp_path_factory.mktemp("fake-cudart")
    library = build / "libfake_cudart.so"
    subprocess.run(["make", "-s", "-C", repository / "tests" / "cpp", f"BUILD={build}", library], check=True)
    return library


@pytest.fixture(params=["host", "cuda"])
def runtime(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What `Scheduler` is told to run on."""
    if request.param == "host":
        return {"runtime": "host"}
    return {"runtime": "cuda", "cuda_library": str(request.getfixturevalue("fake_cudart"))}
