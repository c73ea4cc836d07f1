"""The benchmark of plans: what each took is in its table, and too much of it is an exit code."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from omni2_bench.lab.plans import main
from omni2_engine.backends.tensorrt.library import find_tensorrt
from omni2_engine.errors import BackendError, SettingError


@pytest.fixture(autouse=True)
def tensorrt() -> None:
    try:
        if not find_tensorrt().builds_for_other_gpus:
            pytest.skip("mainline TensorRT builds for the GPU present alone")
    except BackendError as error:
        pytest.skip(str(error))


def test_every_plan_is_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    plans = {"size": "tiny", "stage": "llm,fusion"}
    assert code_of(**plans, target="sm89,sm86", precision="fast", limit=8.0) == 0
    shown = capsys.readouterr().out
    assert "bf16+int4" in shown and shown.count("within") == 4 and shown.count("sm86") == 2
    assert code_of(**plans, limit=0.1, structure=True) == 1
    assert "over 0.1 GB" in capsys.readouterr().out
    with pytest.raises(SettingError, match="lllm"):
        main(**{**plans, "stage": "lllm"})


def code_of(**options: Any) -> int:
    with pytest.raises(typer.Exit) as raised:
        main(**options)
    return raised.value.exit_code
