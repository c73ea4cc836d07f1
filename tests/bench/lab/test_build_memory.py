"""The benchmark of a build: every stage is seen, with the memory it took and the bound it is held to."""

from __future__ import annotations

from pathlib import Path

from omni2_bench.lab.build_memory import FIXED, measure_build
from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_export.build import BuildRequest
from omni2_export.checkpoint import open_checkpoint


def test_every_stage_is_measured(tiny_checkpoint: CheckpointPaths, repository: Path, tmp_path: Path) -> None:
    opened = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    costs = measure_build(BuildRequest(opened, tmp_path / "engine", [repository / "examples" / "voice.wav"]))
    by_name = {cost.name: cost for cost in costs}
    assert {"encoder", "llm", "speech_lm", "flow_step", "vocoder"} <= set(by_name)
    rows, width = opened.modules["speech_lm"].shape("embed_tokens.weight")
    assert by_name["speech_lm"].bound == FIXED + 2 * 4 * rows * width
    for cost in costs:
        assert cost.seconds >= 0 and cost.peak <= cost.bound
    assert by_name["llm"].written > 0
    assert measure_build(BuildRequest(opened, tmp_path / "engine", [repository / "examples" / "voice.wav"])) == []
