"""Calibration: ranges are the true maxima of what layers read, and float8 graphs made with them answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omni2_bench.random_checkpoint import CheckpointPaths
from omni2_engine.audio.source import read_audio
from omni2_engine.backends.onnxruntime import OnnxRuntimeBackend
from omni2_engine.cli.app import run
from omni2_engine.errors import SettingError
from omni2_engine.manifest import EngineDirectory
from omni2_engine.stages.encoder import SpeechEncoder
from omni2_engine.stages.frontend import Frontend
from omni2_export.build import BuildRequest, build_engine, parse_precision
from omni2_export.build.graphs import graph_specs
from omni2_export.calibration import Ranges, calibrate, read_ranges
from omni2_export.checkpoint import open_checkpoint
from omni2_export.graphs.builder import Numerics
from omni2_export.graphs.linear import Precision
from omni2_export.graphs.numerics import FLOAT
from omni2_export.inspection import open_cut
from omni2_export.narrow_backend import NarrowBackend
from omni2_export.verify.rows import snr


@pytest.fixture(scope="module")
def ranges(tiny_engine_dir: Path, question: Path) -> Ranges:
    return calibrate(tiny_engine_dir, [question], threads=1)


def test_every_layer_has_its_range(ranges: Ranges, tiny_engine_dir: Path) -> None:
    config = EngineDirectory(tiny_engine_dir).manifest.model
    assert {"encoder", "llm", "speech_lm", "fusion", "flow_step"} <= set(ranges)
    for name, layers in (("llm", config.llm.layers), ("speech_lm", config.speech_lm.layers)):
        labels = {"lm_head"}
        for layer in range(layers):
            path = f"layers.{layer}"
            labels |= {f"{path}.self_attn.{part}" for part in ("o_proj",)} | {f"{path}.mlp.down_proj"}
            labels |= {"+".join(f"{path}.self_attn.{part}_proj" for part in "qkv")}
            labels |= {f"{path}.mlp.gate_proj+{path}.mlp.up_proj"}
        assert set(ranges[name]) == labels
    assert all(0 < size < 1e4 for found in ranges.values() for size in found.values())


def test_a_range_is_the_largest_magnitude_that_was_read(ranges: Ranges, tiny_engine_dir: Path, question: Path) -> None:
    engine, backend = EngineDirectory(tiny_engine_dir), OnnxRuntimeBackend(1)
    encoder = engine.manifest.model.encoder
    audio = read_audio(question, None, encoder.samples / 16_000)
    log_mel = Frontend(backend.load(engine.graph("log_mel")), encoder)(audio)
    encoded = open_cut(backend, engine.graph("encoder"), [], ["encoder_out"]).run({"log_mel": log_mel})["encoder_out"]
    kept = encoded[:, : encoder.positions * encoder.stack]
    assert ranges["encoder"]["projector.linear1"] == pytest.approx(float(np.abs(kept).max()), rel=1e-5)


def test_further_recordings_widen_ranges(
    ranges: Ranges, tiny_engine_dir: Path, question: Path, repository: Path
) -> None:
    both = calibrate(tiny_engine_dir, [question, repository / "examples" / "voice.wav"], threads=1)
    assert all(both["encoder"][label] >= size for label, size in ranges["encoder"].items())
    assert both["encoder"] != ranges["encoder"]


def test_a_float8_encoder_with_its_ranges(
    ranges: Ranges, tiny_engine_dir: Path, tiny_checkpoint: CheckpointPaths, question: Path, tmp_path: Path
) -> None:
    """And with ranges that are far too narrow, which shows that they are used."""
    engine, backend = EngineDirectory(tiny_engine_dir), OnnxRuntimeBackend(1)
    opened = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    spec, config = graph_specs(opened.config, opened.modules)["encoder"], opened.config.encoder
    audio = read_audio(question, None, config.samples / 16_000)
    log_mel = Frontend(backend.load(engine.graph("log_mel")), config)(audio)
    exact = SpeechEncoder(backend.load(engine.graph("encoder")))(log_mel).astype(np.float64)
    found = {}
    for scale in (1.0, 0.05):
        narrowed = {label: scale * size for label, size in ranges["encoder"].items()}
        path = spec.write(tmp_path, Precision.FP8, Numerics(FLOAT, ranges=narrowed))
        found[scale] = snr(SpeechEncoder(NarrowBackend(1).load(path))(log_mel).astype(np.float64), exact)
    assert found[1.0] > 20 and found[0.05] < found[1.0] - 10


def test_what_cannot_be_calibrated(
    tiny_engine_dir: Path, tiny_checkpoint: CheckpointPaths, question: Path, repository: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="nothing to calibrate with"):
        calibrate(tiny_engine_dir, [])
    opened = open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)
    voice = repository / "examples" / "voice.wav"
    build_engine(BuildRequest(opened, tmp_path / "engine", [voice], parse_precision("exact,llm=int8")))
    with pytest.raises(SettingError, match="quantised stages: llm"):
        calibrate(tmp_path / "engine", [question])


def test_ranges_are_kept_in_a_file(
    ranges: Ranges, tiny_engine_dir: Path, question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ranges.json"
    assert run(["calibrate", str(tiny_engine_dir), str(question), "-o", str(file), "--threads", "1"]) == 0
    assert "1 recordings" in capsys.readouterr().out and read_ranges(file) == ranges
    file.write_text('{"llm": [1, 2]}')
    with pytest.raises(SettingError, match="holds no ranges"):
        read_ranges(file)
    assert run(["calibrate", str(tiny_engine_dir), str(question), "-o", str(tmp_path / "none" / "ranges.json")]) == 1
