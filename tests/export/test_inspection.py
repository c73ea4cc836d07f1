"""Cuts of built graphs: parts put together are the whole, and only what a part needs is in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.errors import BackendError, EngineDirectoryError
from omni2_engine.model.manifest import EngineDirectory
from omni2_export.inspection import Tap, cut, open_cut

BACKEND = OnnxRuntimeBackend(1)


def log_mel(directory: EngineDirectory) -> np.ndarray:
    config = directory.manifest.model.encoder
    return np.random.default_rng(0).standard_normal((1, config.mel_bins, config.frames), np.float32)


def test_two_parts_make_the_whole(tiny_engine_dir: Path) -> None:
    directory = EngineDirectory(tiny_engine_dir)
    path, mel = directory.graph("encoder"), log_mel(directory)
    whole = BACKEND.load(path).run({"log_mel": mel})["speech"]
    first = open_cut(BACKEND, path, [], ["layer_0_out"])
    second = open_cut(BACKEND, path, ["layer_0_out"], ["encoder_out", "speech"])
    assert list(first.inputs) == ["log_mel"] and list(second.inputs) == ["layer_0_out"]
    outputs = second.run(first.run({"log_mel": mel}))
    np.testing.assert_allclose(outputs["speech"], whole, atol=1e-5)
    assert outputs["encoder_out"].shape[1] == directory.manifest.model.encoder.context


def test_a_part_holds_one_layer_and_nothing_else(tiny_engine_dir: Path) -> None:
    path = EngineDirectory(tiny_engine_dir).graph("llm")
    part = cut(path, ["layer_0_out"], ["layer_1_out"]).graph
    names = {tensor.name for tensor in part.initializer}
    assert any("layers.1." in name for name in names)
    assert not any("layers.0." in name or "lm_head" in name for name in names)
    assert {value.name for value in part.input} == {
        "layer_0_out", "positions", "write", "mask", "keys_1", "values_1",
    }  # fmt: skip
    assert [value.name for value in part.output] == ["layer_1_out"]


def test_a_cut_keeps_no_weights_in_memory(tiny_engine_dir: Path) -> None:
    path = EngineDirectory(tiny_engine_dir).graph("llm")
    model = cut(path, [], ["logits"])
    assert any(tensor.external_data for tensor in model.graph.initializer)
    assert len(model.SerializeToString()) < path.with_suffix(".weights").stat().st_size / 10


@pytest.mark.parametrize(("inputs", "outputs"), [([], ["nobody"]), (["nobody"], ["logits"])])
def test_unknown_names_are_told(tiny_engine_dir: Path, inputs: list[str], outputs: list[str]) -> None:
    with pytest.raises(EngineDirectoryError, match="nobody"):
        cut(EngineDirectory(tiny_engine_dir).graph("llm"), inputs, outputs)


def test_damaged_files_are_told(tiny_engine_dir: Path, tmp_path: Path) -> None:
    source = EngineDirectory(tiny_engine_dir).graph("fusion")
    with pytest.raises(EngineDirectoryError, match=r"fusion\.onnx"):
        cut(tmp_path / "fusion.onnx", [], ["fused"])
    (tmp_path / "fusion.onnx").write_bytes(source.read_bytes()[:-100] + b"\xff" * 50)
    with pytest.raises(EngineDirectoryError, match=r"fusion\.onnx"):
        cut(tmp_path / "fusion.onnx", [], ["fused"])
    shutil.copyfile(source, tmp_path / "fusion.onnx")  # without its weights
    with pytest.raises(BackendError, match=r"fusion\.onnx"):
        open_cut(BACKEND, tmp_path / "fusion.onnx", [], ["fused"])


def test_a_tap_keeps_copies_of_every_run(tiny_engine_dir: Path) -> None:
    directory = EngineDirectory(tiny_engine_dir)
    config, random = directory.manifest.model.fusion, np.random.default_rng(0)
    tap = Tap(BACKEND.load(directory.graph("fusion")))
    for pairs in (1, 3):
        inputs = {
            "hidden": random.standard_normal((pairs, config.llm_hidden), np.float32),
            "token_embeds": random.standard_normal((pairs, config.speech_hidden), np.float32),
        }
        fused = tap.run(inputs)["fused"]
        assert np.array_equal(tap.runs[-1]["fused"], fused)
        fused[:] = 0
        assert tap.runs[-1]["fused"].any()
    assert [run["fused"].shape[0] for run in tap.runs] == [1, 3]
    assert tap.inputs.keys() == {"hidden", "token_embeds"} and tap.outputs.keys() == {"fused"}
