"""`.pt` files as `.safetensors`: same keys, types and values, whole or absent; and no torch needed afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from omni2_engine.errors import Omni2Error, SettingError
from omni2_export.checkpoint import convert, open_checkpoint
from omni2_export.checkpoint.safetensors_file import SafetensorsFile
from omni2_export.checkpoint.torch_file import TorchFile
from omni2_export.cli.convert import register

from .conftest import Synthetic


def test_convert_keeps_keys_types_and_dims(synthetic: Synthetic, tmp_path: Path) -> None:
    paths = synthetic.write(tmp_path)
    synthetic.flow["encoder_proj.bias"] = synthetic.flow["encoder_proj.bias"].bfloat16()
    synthetic.flow["steps"] = torch.tensor(3)  # without axes
    synthetic.flow["transposed"] = torch.arange(6.0).reshape(2, 3).t()
    torch.save(synthetic.flow, paths.decoder / "flow.pt")
    assert convert(paths.decoder / "flow.pt") == paths.decoder / "flow.safetensors"
    written = load_file(paths.decoder / "flow.safetensors")
    assert written.keys() == synthetic.flow.keys()
    for name, tensor in synthetic.flow.items():
        assert written[name].dtype == tensor.dtype and torch.equal(written[name], tensor)

    del synthetic.flow["steps"], synthetic.flow["transposed"]
    synthetic.take_encoder_out()
    (paths.model / "model.safetensors").unlink()
    (again := tmp_path / "again").mkdir()
    paths = synthetic.write(again)
    before = open_checkpoint(paths.model, decoder=paths.decoder)
    convert(paths.whisper)
    paths.whisper.unlink()
    after = open_checkpoint(paths.model, decoder=paths.decoder)
    assert after.config == before.config
    assert after.sources["encoder"][-1] == paths.whisper.with_suffix(".safetensors")
    for name in before.modules["encoder"].names():
        assert np.array_equal(after.modules["encoder"].read(name), before.modules["encoder"].read(name))


def test_convert_leaves_nothing_half_written(
    synthetic: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = synthetic.write(tmp_path)
    calls = 0
    stored = TorchFile.stored

    def failing(self: TorchFile, name: str) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return stored(self, name)

    monkeypatch.setattr(TorchFile, "stored", failing)
    before = sorted(paths.decoder.iterdir())
    with pytest.raises(KeyboardInterrupt):
        convert(paths.decoder / "flow.pt")
    assert sorted(paths.decoder.iterdir()) == before


def test_convert_refuses_bad_targets(synthetic: Synthetic, tmp_path: Path) -> None:
    paths = synthetic.write(tmp_path)
    source = paths.decoder / "hift.pt"
    for target in (tmp_path / "no" / "where.safetensors", tmp_path / "hift.bin"):
        with pytest.raises(SettingError):
            convert(source, target)
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(SettingError, match="cannot be written"):
        convert(source, tmp_path / "taken.safetensors")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("link", ["same", "symbolic", "hard"])
def test_the_input_is_never_overwritten(synthetic: Synthetic, tmp_path: Path, link: str) -> None:
    """Also where its name ends in .safetensors, or the output is a link to it."""
    source = synthetic.write(tmp_path).decoder / "flow.pt"
    target = source.with_suffix(".safetensors")
    if link == "same":
        source = source.rename(target)
    elif link == "symbolic":
        target.symlink_to(source)
    else:
        target.hardlink_to(source)
    before = source.read_bytes()
    with pytest.raises(SettingError, match="is the file to convert itself"):
        convert(source)
    assert source.read_bytes() == before


def test_only_what_convert_made_is_replaced(synthetic: Synthetic, tmp_path: Path) -> None:
    source = synthetic.write(tmp_path).decoder / "flow.pt"
    target = convert(source)
    synthetic.flow["encoder_proj.bias"] += 1
    torch.save(synthetic.flow, source)
    convert(source)
    assert torch.equal(load_file(target)["encoder_proj.bias"], synthetic.flow["encoder_proj.bias"])
    for content in (b"a thesis", None):
        if content is None:
            save_file(synthetic.flow, target, {"format": "pt"})
        else:
            target.write_bytes(content)
        before = target.read_bytes()
        with pytest.raises(SettingError, match="`convert` did not make it"):
            convert(source, target)
        assert target.read_bytes() == before


def test_what_stands_beside_the_tensors_is_kept(synthetic: Synthetic, tmp_path: Path) -> None:
    source = synthetic.write(tmp_path).decoder / "flow.pt"
    torch.save(synthetic.flow | {"epoch": 12, "notes": ["a", {"rate": 0.5}], "odd": torch.Size([1])}, source)
    metadata = SafetensorsFile(convert(source)).metadata
    assert json.loads(metadata["epoch"]) == 12 and json.loads(metadata["notes"]) == ["a", {"rate": 0.5}]
    assert load_file(source.with_suffix(".safetensors")).keys() == synthetic.flow.keys()


def test_a_safetensors_file_keeps_its_metadata(synthetic: Synthetic, tmp_path: Path) -> None:
    save_file(synthetic.flow, tmp_path / "flow.safetensors", {"format": "pt", "licence": "ours"})
    written = SafetensorsFile(convert(tmp_path / "flow.safetensors", tmp_path / "copy.safetensors"))
    assert written.metadata["format"] == "pt" and written.metadata["licence"] == "ours"
    assert load_file(tmp_path / "copy.safetensors").keys() == synthetic.flow.keys()


@pytest.mark.parametrize("name", ["flow", "hift", "whisper"])
def test_an_older_safetensors_file_is_not_taken_in_silence(synthetic: Synthetic, tmp_path: Path, name: str) -> None:
    synthetic.take_encoder_out()
    paths = synthetic.write(tmp_path)
    source = paths.whisper if name == "whisper" else paths.decoder / f"{name}.pt"
    taken = convert(source)

    def warnings() -> list[str]:
        return [text for text in open_checkpoint(paths.model, decoder=paths.decoder).warnings if "older" in text]

    os.utime(source, (1_000_000, 1_000_000))
    assert warnings() == []
    os.utime(taken, (999_999, 999_999))
    (warning,) = warnings()
    assert f"{taken} is read, and is older than {source.name}" in warning and f"convert {source}" in warning
    taken.unlink()
    assert warnings() == []


def test_convert_command(synthetic: Synthetic, tmp_path: Path) -> None:
    paths = synthetic.write(tmp_path)
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    target = tmp_path / "vocoder.safetensors"
    result = CliRunner().invoke(app, ["convert", str(paths.decoder / "hift.pt"), "-o", str(target)])
    assert result.exit_code == 0 and str(target) in result.output.replace("\n", "")
    assert SafetensorsFile(target).names()
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "absent.pt")])
    assert isinstance(result.exception, Omni2Error)


WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
from pathlib import Path
from omni2_engine.errors import CheckpointError
from omni2_export.checkpoint import open_checkpoint
model, decoder = map(Path, sys.argv[1:])
try:
    checkpoint = open_checkpoint(model, decoder=decoder)
    print(checkpoint.modules["vocoder"].read("conv_pre.weight").shape, checkpoint.config.encoder.heads)
except CheckpointError as error:
    print(error)
"""


def test_torch_is_needed_for_pt_files_only(synthetic: Synthetic, tmp_path: Path, repository: Path) -> None:
    paths = synthetic.write(tmp_path)

    def run() -> str:
        path = os.pathsep.join(str(repository / floor) for floor in ("engine", "export", "kernels"))
        command = [sys.executable, "-c", WITHOUT_TORCH, str(paths.model), str(paths.decoder)]
        return subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
        ).stdout

    assert "omni2-engine[torch]" in run()
    for file in (paths.decoder / "flow.pt", paths.decoder / "hift.pt", paths.whisper):
        convert(file)
        file.unlink()
    assert run() == "(8, 10, 7) 4\n"
    # A Whisper .pt that would tell nothing new is left alone.
    assert synthetic.whisper is not None
    torch.save(synthetic.whisper, paths.whisper)
    paths.whisper.with_suffix(".safetensors").unlink()
    assert "omni2-engine[torch]" in run()
    (paths.model / "config.json").write_text(
        json.dumps(synthetic.config | {"speech_encoder_dims": {"n_audio_head": 3}})
    )
    assert run() == "(8, 10, 7) 3\n"
