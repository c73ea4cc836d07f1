"""`build --check`: a good engine passes on every stage, a spoilt weight is found and named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_export.build import BuildRequest, build_engine, parse_precision
from omni2_export.check import check_engine, compare_modules
from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.verify.rows import Measure

STAGES = {
    "log_mel", "encoder", "llm_table", "llm", "fusion", "speech_lm_table", "speech_lm", "flow_conditions",
    "flow_encoder", "flow_step", "vocoder",
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: CheckpointPaths) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)


def spoil(path: Path) -> None:
    """Scale the middle third of a file of float32 weights."""
    weights = np.memmap(path, np.float32, "r+")
    third = len(weights) // 3
    weights[third : 2 * third] *= 1.5
    weights.flush()


def test_a_good_engine_passes_on_every_stage(
    tiny_engine_dir: Path, checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    report = compare_modules(tiny_engine_dir, checkpoint)
    assert report.misses == []
    assert {row.stage for row in report.judged} == STAGES
    assert check_engine(tiny_engine_dir, checkpoint)
    assert f"all {len(report.judged)} comparisons pass" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["encoder", "llm", "fusion", "flow_encoder", "flow_step", "vocoder"])
def test_spoilt_weights_are_found(
    stage: str, tiny_engine_dir: Path, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "engine"
    shutil.copytree(tiny_engine_dir, engine, copy_function=os.link)
    weights = engine / "graphs" / f"{stage}.weights"
    weights.unlink()  # a link so far
    shutil.copyfile(tiny_engine_dir / "graphs" / f"{stage}.weights", weights)
    spoil(weights)
    assert not check_engine(engine, checkpoint)
    assert "MISS" in capsys.readouterr().out
    missed = [row.stage for row in compare_modules(engine, checkpoint).misses]
    follows = {"flow_step"} if stage == "flow_encoder" else set()  # its mel is made of the encoder's μ
    assert missed[0] == stage and set(missed) - follows == {stage}


def test_a_spoilt_embedding_table_is_found(tiny_engine_dir: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    shutil.copytree(tiny_engine_dir, engine)
    path = engine / "tables" / "llm_embed.npy"
    table = np.load(path)
    np.save(path, np.roll(table, 1, axis=0))
    assert {row.stage for row in compare_modules(engine, checkpoint).misses} == {"llm_table"}


@pytest.mark.parametrize("preset", ["balanced", "fast"])
def test_quantised_stages_keep_their_floors(
    preset: str, checkpoint: Checkpoint, tmp_path: Path, repository: Path
) -> None:
    precisions = parse_precision(preset)
    build_engine(BuildRequest(checkpoint, tmp_path / "engine", [repository / "examples" / "voice.wav"], precisions))
    report = compare_modules(tmp_path / "engine", checkpoint)
    by_snr = {row.stage: row.limit for row in report.judged if row.measure is Measure.SNR}
    assert by_snr == pytest.approx({stage: precisions.floors[stage] for stage in by_snr})
    assert set(by_snr) == {"encoder", "llm", "speech_lm"} | ({"flow_step"} if preset == "fast" else set())
    assert report.misses == []
