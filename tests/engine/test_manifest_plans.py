"""Plans in the manifest: the right one is found, a wrong one is named with how to build the right one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omni2_engine.cli.app import run
from omni2_engine.errors import EngineDirectoryError
from omni2_engine.model.manifest import EngineDirectory, FileEntry, PlanEntry, StageEntry

LLM = PlanEntry(
    stage="llm",
    target="sm89",
    flavour="tensorrt_rtx",
    version="1.7.1",
    precision="bf16+int4",
    dimensions={"B": (1, 8, 8), "capacity": (4160, 4160, 4160)},
)


@pytest.fixture
def engine(tiny_engine_dir: Path, tmp_path: Path) -> EngineDirectory:
    """An engine whose manifest has plans, of which there are as many bytes as it says."""
    manifest = EngineDirectory(tiny_engine_dir).manifest
    plans = (LLM, LLM.model_copy(update={"target": "sm86"}))
    files = {plan.file: FileEntry(size=3, sha256="0" * 64) for plan in plans}
    stages = {f"llm {plan.target}": StageEntry(key="k", files=(plan.file,)) for plan in plans}
    changed = manifest.model_copy(
        update={"plans": plans, "files": files, "stages": stages, "targets": ("sm89", "sm86"), "precision": {}}
    )
    for plan in plans:
        (tmp_path / plan.file).parent.mkdir(parents=True)
        (tmp_path / plan.file).write_bytes(b"abc")
    (tmp_path / "manifest.json").write_text(changed.model_dump_json(), encoding="utf-8")
    return EngineDirectory(tmp_path)


def test_the_right_plan_is_found(engine: EngineDirectory) -> None:
    plan = engine.plan("llm", "sm86", "tensorrt_rtx", "1.7.1")
    assert plan.file == "plans/sm86/llm.plan" and plan.dimensions["capacity"] == (4160, 4160, 4160)
    assert engine.runtime_cache("sm86").parent == (engine.path / plan.file).parent


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("llm", "sm80", "tensorrt_rtx", "1.7.1"), ["llm for sm80", "one for sm89", "one for sm86", "--target sm80"]),
        (("llm", "sm89", "tensorrt", "10.9"), ["tensorrt 10.9", "tensorrt_rtx 1.7.1", "--target sm89"]),
        (("llm", "sm89", "tensorrt_rtx", "1.8.0"), ["1.8.0", "1.7.1"]),
        (("vocoder", "sm89", "tensorrt_rtx", "1.7.1"), ["no plan of vocoder", "there is none"]),
    ],
)
def test_a_wrong_plan_is_named(engine: EngineDirectory, asked: tuple[str, str, str, str], words: list[str]) -> None:
    with pytest.raises(EngineDirectoryError) as caught:
        engine.plan(*asked)
    for word in words:
        assert word in str(caught.value)


def test_inspect_shows_targets_and_plans(engine: EngineDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(engine.path)]) == 0
    shown = capsys.readouterr().out
    assert "sm89, sm86" in shown and "bf16+int4" in shown and "tensorrt_rtx 1.7.1" in shown
    assert run(["inspect", str(engine.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plans"][0]["precision"] == "bf16+int4"
