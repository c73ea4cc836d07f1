"""`pip install .` without extras, in an environment of its own, streams from a built engine: no torch, no onnx."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

SOURCES = (
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "cpp",
    "engine",
    "export",
    "kernels",
    "bench",
    "training",
)
ABSENT = ("torch", "transformers", "onnx", "onnx_ir", "onnxscript", "safetensors", "matplotlib")
UNREACHABLE = ("connection", "Connection", "Temporary failure", "timed out", "Could not fetch URL")

STREAM = f"""
import importlib.util, sys
import omni2_engine
absent = {ABSENT!r}
assert not any(importlib.util.find_spec(name) for name in absent), "the environment is not clean"
import numpy as np
engine = omni2_engine.Engine.load(sys.argv[1], threads=1)
question = (0.1 * np.sin(np.arange(16000) * 0.1)).astype(np.float32)
chunks = list(engine.stream(question, sample_rate=16000, max_new_tokens=6, max_last_write=20))
assert sum(len(chunk.pcm) for chunk in chunks) > 0 and chunks[-1].final
assert not set(absent) & set(sys.modules)
print("streamed", omni2_engine.__file__)
"""


def pip(python: Path, *arguments: str) -> None:
    result = subprocess.run([python, "-m", "pip", "install", "-q", *arguments], capture_output=True, text=True)
    if result.returncode and any(word in result.stderr for word in UNREACHABLE):
        pytest.skip("the package index cannot be reached, so nothing can be installed in a fresh environment")
    assert result.returncode == 0, result.stderr


def test_install_without_extras_streams(repository: Path, tiny_engine_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    skip = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    for name in SOURCES:
        item = repository / name
        (shutil.copytree(item, source / name, ignore=skip) if item.is_dir() else shutil.copy(item, source / name))
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip(python, str(source))
    script = tmp_path / "stream.py"
    script.write_text(STREAM, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [python, script, tiny_engine_dir], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("streamed") and str(tmp_path / "venv") in result.stdout
    without = subprocess.run(
        [python, "-m", "omni2_engine.cli.app", "build", "x", "--decoder", "y", "--voice", "z", "-o", "e"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert without.returncode == 1 and "omni2-engine[export]" in without.stderr and "Traceback" not in without.stderr
