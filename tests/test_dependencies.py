"""With any extra, exactly one build of ONNX Runtime is asked for, as two would overwrite each other."""

from __future__ import annotations

import os
import subprocess
import sys
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

METADATA = "from setuptools.build_meta import prepare_metadata_for_build_wheel as p; print(p({folder!r}))"


def requirements(repository: Path, folder: Path, **environment: str) -> tuple[list[str], list[Requirement]]:
    """(extras, requirements) of the distribution as built in that environment."""
    script = METADATA.format(folder=str(folder))
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=repository, env=os.environ | environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    metadata = Parser().parsestr((folder / run.stdout.split()[-1] / "METADATA").read_text(encoding="utf-8"))
    return metadata.get_all("Provides-Extra", []), [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]


@pytest.mark.parametrize("build", ["onnxruntime", "onnxruntime-gpu"])
def test_every_extra_ends_with_one_onnx_runtime(repository: Path, tmp_path: Path, build: str) -> None:
    extras, needs = requirements(repository, tmp_path, OMNI2_ONNXRUNTIME=build)
    assert {"gpu", "tensorrt", "export", "dev"} <= set(extras)
    for picked in [(), *((extra,) for extra in extras), tuple(extras)]:
        asked = {
            need.name
            for need in needs
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *picked))
        }
        assert {name for name in asked if name.startswith("onnxruntime")} == {build}


def test_the_build_for_cpus_is_the_default(repository: Path, tmp_path: Path) -> None:
    _, needs = requirements(repository, tmp_path)
    assert "onnxruntime" in {need.name for need in needs if need.marker is None}


def test_another_build_is_refused(repository: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=repository,
        env=os.environ | {"OMNI2_ONNXRUNTIME": "onnxruntime-directml"},
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0 and "use one of onnxruntime, onnxruntime-gpu" in run.stderr
