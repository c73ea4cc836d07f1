"""The build: whole or absent, resumable, reusing what is there; precisions; memory of a stage."""

from __future__ import annotations

import errno
import json
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import soundfile

from omni2_bench.random_checkpoint.speaker import write_campplus
from omni2_engine import Engine
from omni2_engine.cli.app import run as command
from omni2_engine.errors import AudioError, CheckpointError, Omni2Error, SettingError
from omni2_engine.model.manifest import EngineDirectory
from omni2_export.build import BuildRequest, build_engine
from omni2_export.build.precision import PRESETS, Precisions, parse_precision
from omni2_export.build.run import Silent
from omni2_export.build.workspace import MARK, Workspace
from omni2_export.checkpoint import Checkpoint, open_checkpoint


@pytest.fixture
def checkpoint(tiny_checkpoint: Any) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint.model, decoder=tiny_checkpoint.decoder)


@pytest.fixture
def voice(repository: Path) -> Path:
    return repository / "examples" / "voice.wav"


class Watcher(Silent):
    """Notes which stages are built and which are reused, and may interrupt."""

    def __init__(self, stop_in: str | None = None) -> None:
        self.built: list[str] = []
        self.reused: list[str] = []
        self._stop_in = stop_in

    def advance(self, stage: str, size: int) -> None:
        if stage == self._stop_in:
            raise KeyboardInterrupt

    def end(self, stage: str, reused: bool) -> None:
        (self.reused if reused else self.built).append(stage)


def test_engine_is_whole(checkpoint: Checkpoint, voice: Path, tmp_path: Path) -> None:
    manifest = build_engine(BuildRequest(checkpoint, tmp_path / "engine", [voice]))
    directory = EngineDirectory(tmp_path / "engine")
    directory.check()
    files = {path.relative_to(directory.path).as_posix() for path in directory.path.rglob("*") if path.is_file()}
    assert files == set(manifest.files) | {"manifest.json"}
    assert {name for entry in manifest.stages.values() for name in entry.files} == set(manifest.files)
    assert directory.voices() == ["voice"] and manifest.default_voice == "voice"
    assert manifest.model == checkpoint.config
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]


def test_a_build_where_onnxruntime_gpu_is_the_only_one(
    checkpoint: Checkpoint, voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both packages bring the same module; only one has metadata."""

    def installed(package: str) -> str:
        if package == "onnxruntime":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr("importlib.metadata.version", installed)
    monkeypatch.setattr("omni2_export.build.run.version", installed)
    manifest = build_engine(BuildRequest(checkpoint, tmp_path / "engine", [voice]))
    assert manifest.tools["onnxruntime"] == ort.__version__


def test_interrupted_build_goes_on(checkpoint: Checkpoint, voice: Path, tmp_path: Path) -> None:
    target, partial = tmp_path / "engine", tmp_path / "engine.partial"
    with pytest.raises(KeyboardInterrupt):
        build_engine(BuildRequest(checkpoint, target, [voice]), Watcher(stop_in="speech_lm"))
    assert not target.exists() and partial.is_dir()
    recorded = {name for stage in json.loads((partial / "stages.json").read_text()).values() for name in stage["files"]}
    present = {path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file()}
    assert present == recorded | {"stages.json", MARK}  # nothing half-written stays
    assert "graphs/llm.onnx" in present and not any("speech_lm.onnx" in name for name in present)
    (partial / "graphs" / "stray.weights").write_bytes(b"left by a killed build")
    watcher = Watcher()
    build_engine(BuildRequest(checkpoint, target, [voice]), watcher)
    assert {"llm", "encoder", "text"} <= set(watcher.reused) and "speech_lm" in watcher.built
    EngineDirectory(target).check()
    assert not partial.exists() and not (target / "graphs" / "stray.weights").exists()


def test_a_damaged_stage_is_built_again(checkpoint: Checkpoint, voice: Path, tmp_path: Path) -> None:
    target, partial = tmp_path / "engine", tmp_path / "engine.partial"
    with pytest.raises(KeyboardInterrupt):
        build_engine(BuildRequest(checkpoint, target, [voice]), Watcher(stop_in="speech_lm"))
    weights = partial / "graphs" / "llm.weights"
    weights.write_bytes(weights.read_bytes()[:-1])
    watcher = Watcher()
    build_engine(BuildRequest(checkpoint, target, [voice]), watcher)
    assert "llm" in watcher.built and "encoder" in watcher.reused
    EngineDirectory(target).check()


def test_rebuilding_takes_over_what_has_not_changed(checkpoint: Checkpoint, voice: Path, tmp_path: Path) -> None:
    target = tmp_path / "engine"
    build_engine(BuildRequest(checkpoint, target, [voice]))
    other = tmp_path / "other.wav"
    shutil.copy(voice, other)
    watcher = Watcher()
    request = BuildRequest(checkpoint, target, [other, voice], parse_precision("exact,llm=int8"))
    manifest = build_engine(request, watcher)
    assert set(watcher.built) == {"llm", "voice other"}
    assert manifest.preset == "custom" and manifest.precision["llm"] == "int8"
    directory = EngineDirectory(target)
    directory.check()
    assert directory.voices() == ["other", "voice"] and manifest.default_voice == "other"
    build_engine(BuildRequest(checkpoint, target, [voice]))
    assert EngineDirectory(target).voices() == ["voice"]
    assert not (tmp_path / "engine.replaced").exists()


def test_a_changed_checkpoint_is_not_mistaken_for_the_old(tiny_checkpoint: Any, voice: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint.decoder, tmp_path / "decoder"))
    opened = open_checkpoint(tiny_checkpoint.model, decoder=copy)
    build_engine(BuildRequest(opened, tmp_path / "engine", [voice]))
    flow = copy / "flow.safetensors"
    content = bytearray(flow.read_bytes())
    content[-1] ^= 1
    flow.write_bytes(content)
    watcher = Watcher()
    opened = open_checkpoint(tiny_checkpoint.model, decoder=copy)
    build_engine(BuildRequest(opened, tmp_path / "engine", [voice]), watcher)
    assert {"flow_encoder", "flow_step", "flow_conditions"} <= set(watcher.built)
    assert "llm" in watcher.reused


def test_two_builds_write_the_same_bytes(checkpoint: Checkpoint, voice: Path, tmp_path: Path) -> None:
    first, second = (build_engine(BuildRequest(checkpoint, tmp_path / name, [voice])) for name in ("a", "b"))
    assert first.files == second.files


@pytest.mark.parametrize("preset", ["balanced", "fast"])
def test_quantised_engines_answer(
    checkpoint: Checkpoint, voice: Path, tmp_path: Path, question: Path, preset: str
) -> None:
    manifest = build_engine(BuildRequest(checkpoint, tmp_path / "engine", [voice], PRESETS[preset]))
    assert manifest.preset == preset
    engine = Engine.load(tmp_path / "engine", threads=1, warm_up=False)
    chunks = list(engine.stream(question, max_new_tokens=6, max_last_write=20))
    pcm = np.concatenate([chunk.pcm for chunk in chunks])
    assert len(pcm) and np.isfinite(pcm).all()


def test_precision_is_read_or_refused() -> None:
    assert parse_precision("fast") == PRESETS["fast"]
    mixed = parse_precision("fast, encoder=fp32")
    assert (
        mixed.stages == {"encoder": "fp32", "llm": "int4", "speech_lm": "int4", "flow": "int8"}
        and mixed.preset == "custom"
    )
    assert parse_precision("exact,llm=int8,speech_lm=int8,encoder=int8").preset == "balanced"
    for wrong in ("quick", "fast,flow", "fast,flow=int4", "fast,nose=int8", "exact,encoder=int4", ""):
        with pytest.raises(SettingError):
            parse_precision(wrong)


def test_what_cannot_be_built_is_said_before_any_work(
    checkpoint: Checkpoint, voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "engine"
    with pytest.raises(SettingError, match="target"):
        BuildRequest(checkpoint, target, [voice], target="toaster")
    with pytest.raises(SettingError, match="voice"):
        BuildRequest(checkpoint, target, [])
    with pytest.raises(SettingError, match="same file name"):
        BuildRequest(checkpoint, target, [voice, tmp_path / "voice.flac"])
    with pytest.raises(AudioError):
        build_engine(BuildRequest(checkpoint, target, [tmp_path / "none.wav"]))
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.txt").write_text("important")
    with pytest.raises(Omni2Error, match="not an engine directory"):
        build_engine(BuildRequest(checkpoint, tmp_path / "occupied", [voice]))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(Omni2Error, match="MiB but"):
        build_engine(BuildRequest(checkpoint, target, [voice]))
    assert not target.exists()


def test_one_build_at_a_time(checkpoint: Checkpoint, voice: Path, tmp_path: Path) -> None:
    target = tmp_path / "engine"
    with Workspace(target), pytest.raises(Omni2Error, match="another build"):
        build_engine(BuildRequest(checkpoint, target, [voice]))
    assert list(tmp_path.iterdir()) == []  # a workspace without a finished stage leaves nothing behind
    build_engine(BuildRequest(checkpoint, target, [voice]))
    EngineDirectory(target).check()


def test_a_link_is_followed(checkpoint: Checkpoint, voice: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    for precision in ("exact", "exact,llm=int8", "exact"):
        build_engine(BuildRequest(checkpoint, link, [voice], parse_precision(precision)))
    assert link.is_symlink() and {path.name for path in tmp_path.iterdir()} == {"link", "real"}
    EngineDirectory(link).check()


@pytest.mark.parametrize("target", [".", "..", "/", ""])
def test_the_working_directory_is_not_replaced(
    target: str, checkpoint: Checkpoint, voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Omni2Error, match="from inside"):
        build_engine(BuildRequest(checkpoint, Path(target), [voice]))
    assert list(tmp_path.iterdir()) == []


def test_an_engine_comes_back_if_the_new_one_cannot_take_its_place(
    checkpoint: Checkpoint, voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, replace = tmp_path / "engine", os.replace
    build_engine(BuildRequest(checkpoint, target, [voice]))

    def fail(source: Path, place: Path) -> None:
        if Path(source).name == "engine.partial":
            raise OSError(errno.EIO, "broken disk")
        replace(source, place)

    monkeypatch.setattr("os.replace", fail)
    request = BuildRequest(checkpoint, target, [voice], parse_precision("exact,llm=int8"))
    with pytest.raises(Omni2Error, match="broken disk"):
        build_engine(request)
    assert EngineDirectory(target).manifest.preset == "exact"
    monkeypatch.undo()
    watcher = Watcher()
    build_engine(request, watcher)
    assert watcher.built == []  # nothing of the failed run is lost


def test_voices_belong_to_their_speaker_network(tiny_checkpoint: Any, voice: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint.decoder, tmp_path / "decoder"))
    request = BuildRequest(open_checkpoint(tiny_checkpoint.model, decoder=copy), tmp_path / "engine", [voice])
    build_engine(request)
    write_campplus(copy / "campplus.onnx", request.checkpoint.config.estimator.speaker, seed=9)
    before = np.load(tmp_path / "engine" / "voices" / "voice.npy")
    build_engine(request)
    assert not np.allclose(before, np.load(tmp_path / "engine" / "voices" / "voice.npy"))


def test_an_unusable_voice_costs_no_other_stage(checkpoint: Checkpoint, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    watcher = Watcher()
    with pytest.raises(AudioError, match="silent"):
        build_engine(BuildRequest(checkpoint, tmp_path / "engine", [tmp_path / "silent.wav"]), watcher)
    assert watcher.built == []


def test_command_line(tiny_checkpoint: Any, voice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tiny_checkpoint.model), "--decoder", str(tiny_checkpoint.decoder), "--voice", str(voice)]
    target = tmp_path / "engine"
    assert command(["build", *arguments, "-o", str(target)]) == 0
    EngineDirectory(target).check()
    capsys.readouterr()
    for wrong, code, word in (
        (["build", *arguments, "-o", str(target), "--precision", "quick"], 2, "quick"),
        (["build", "nobody/nothing", *arguments[1:], "-o", str(target)], 1, "nobody/nothing"),
        (["build", str(tmp_path), *arguments[1:], "-o", str(target)], 1, "config.json"),
        (["build", *arguments[:2], str(tmp_path), *arguments[3:], "-o", str(target)], 1, "yaml"),
    ):
        assert command(wrong) == code
        message = capsys.readouterr().err
        assert word in message and "Traceback" not in message and message.startswith("error: ")
    EngineDirectory(target).check()


def test_missing_campplus(checkpoint: Checkpoint, voice: Path, tmp_path: Path) -> None:
    checkpoint.campplus = None
    with pytest.raises(CheckpointError, match="campplus"):
        build_engine(BuildRequest(checkpoint, tmp_path / "engine", [voice]))


def test_precisions_name_every_stage() -> None:
    for preset in PRESETS.values():
        assert isinstance(preset, Precisions) and set(preset.stages) == {"encoder", "llm", "speech_lm", "flow"}
