"""The benchmark of plans: what each took is in its table, and too much of it is an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni2_engine.backends.tensorrt_library import find_tensorrt
from omni2_engine.cli.app import run
from omni2_engine.errors import BackendError


@pytest.fixture(autouse=True)
def tensorrt() -> None:
    try:
        if not find_tensorrt().builds_for_other_gpus:
            pytest.skip("mainline TensorRT builds for the GPU present alone")
    except BackendError as error:
        pytest.skip(str(error))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans = ["bench", "plans", "--size", "tiny", "--stage", "llm,fusion", "--scratch", str(tmp_path)]
    assert run([*plans, "--target", "sm89,sm86", "--precision", "fast"]) == 0
    shown = capsys.readouterr().out
    assert "bf16+int4" in shown and shown.count("within") == 4 and shown.count("sm86") == 4
    assert list(tmp_path.iterdir()) == []
    assert run([*plans, "--limit", "0.1", "--structure"]) == 1
    assert "over 0.1 GB" in capsys.readouterr().out
    assert run([*plans[:4], "--stage", "lllm"]) == 2
    assert "lllm" in capsys.readouterr().err
