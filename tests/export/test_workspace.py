"""What a build removes and replaces: what builds made, and nothing else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from omni2_engine.errors import Omni2Error
from omni2_engine.model.manifest import EngineDirectory, Manifest
from omni2_export.build.workspace import MARK, REPLACED, Workspace

only_unix = pytest.mark.skipif(os.name == "nt", reason="links and mount points")
Build = Callable[..., None]


@pytest.fixture(scope="module")
def build(tiny_engine_dir: Path) -> Build:
    """An engine of a single stage, built into a folder."""
    template = EngineDirectory(tiny_engine_dir).manifest

    def write(folder: Path, content: str) -> None:
        (folder / "graphs").mkdir()
        (folder / "graphs" / "log_mel.onnx").write_text(content)

    def builds(target: Path, content: str = "new") -> None:
        with Workspace(target) as workspace:
            if not workspace.has("log_mel", content):
                workspace.build("log_mel", content, lambda folder: write(folder, content))
            workspace.finish(manifest_of(template, workspace))

    return builds


def manifest_of(template: Manifest, workspace: Workspace) -> Manifest:
    return template.model_copy(update={"stages": workspace.stages(), "files": workspace.entries(), "plans": ()})


def names(folder: Path) -> list[str]:
    """Everything below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def content(target: Path) -> str:
    EngineDirectory(target).check()
    return (target / "graphs" / "log_mel.onnx").read_text()


def test_an_engine_replaces_an_engine_and_leaves_nothing_else(build: Build, tmp_path: Path) -> None:
    target = tmp_path / "engine"
    for text in ("old", "new"):
        build(target, text)
        assert content(target) == text
    assert names(tmp_path) == ["engine", "engine/graphs", "engine/graphs/log_mel.onnx", "engine/manifest.json"]
    (tmp_path / "empty").mkdir()
    build(tmp_path / "empty")
    assert content(tmp_path / "empty") == "new"


@pytest.mark.parametrize("suffix", [".partial", ".replaced"])
@pytest.mark.parametrize("file", ["thesis.txt", "stages.json", "graphs/llm.onnx", None])
def test_folders_of_the_users_stay(build: Build, tmp_path: Path, suffix: str, file: str | None) -> None:
    target, own = tmp_path / "engine", tmp_path / f"engine{suffix}"
    build(target, "old")
    own.mkdir()
    if file is not None:
        (own / file).parent.mkdir(exist_ok=True)
        (own / file).write_text("important")
    before = names(own)
    if suffix == ".partial":
        with pytest.raises(Omni2Error, match=r"engine\.partial is in the way") as refused:
            build(target)
        assert "move it elsewhere" in refused.value.remedy and content(target) == "old"
    else:
        build(target)  # no folder of this name is needed
        assert content(target) == "new"
    assert names(own) == before and (file is None or (own / file).read_text() == "important")


def test_a_file_in_the_way_stays(build: Build, tmp_path: Path) -> None:
    (tmp_path / "engine.partial").write_text("important")
    with pytest.raises(Omni2Error, match="cannot create"):
        build(tmp_path / "engine")
    assert (tmp_path / "engine.partial").read_text() == "important"


@pytest.mark.parametrize("name", ["notes.txt", "graphs/mine.onnx", "voices/mine.npy", ".git/config"])
def test_files_of_the_users_in_an_engine_stay(build: Build, tmp_path: Path, name: str) -> None:
    target = tmp_path / "engine"
    build(target, "old")
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text("important")
    with pytest.raises(Omni2Error, match=f"holds {name}") as refused:
        build(target)
    assert "move that elsewhere" in refused.value.remedy
    assert (target / name).read_text() == "important" and content(target) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]


def test_what_builds_and_engines_leave_in_an_engine_is_no_obstacle(build: Build, tmp_path: Path) -> None:
    target = tmp_path / "engine"
    build(target, "old")
    (target / "plans" / "sm89").mkdir(parents=True)
    for name in ("runtime.cache", ".runtime.cache.x1y2", "timing.cache", "timing.cache.new"):
        (target / "plans" / "sm89" / name).write_bytes(b"cache")
    (target / ".DS_Store").touch()
    build(target)
    assert content(target) == "new"


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "a web page"}', '{"schema_version": 1}'])
def test_a_manifest_that_is_not_ours_proves_nothing(build: Build, tmp_path: Path, text: str) -> None:
    (target := tmp_path / "engine").mkdir()
    (target / "manifest.json").write_text(text)
    with pytest.raises(Omni2Error, match="does not say which files"):
        build(target)
    assert (target / "manifest.json").read_text() == text


def test_an_engine_of_an_older_version_is_replaced(build: Build, tmp_path: Path) -> None:
    target = tmp_path / "engine"
    build(target, "old")
    manifest = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps({"schema_version": 0, "files": manifest["files"]}))
    build(target)
    assert content(target) == "new"


@only_unix
def test_links_in_an_engine_are_the_users(build: Build, tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    build(target := tmp_path / "engine", "old")
    (target / "data").symlink_to(data)
    with pytest.raises(Omni2Error, match="holds data"):
        build(target)
    assert (target / "data").is_symlink() and data.is_dir()


KILLED = """
import os, sys
from pathlib import Path
from omni2_export.build.workspace import Workspace
workspace, calls = Workspace(Path(sys.argv[1])), []
workspace.build("fbank", "key", lambda folder: (folder / "fbank.onnx").write_text("kept"))
if sys.argv[2] == "moving":
    os.replace(workspace.target, workspace.path / "replaced")  # the first half of finish
os._exit(9)
"""


@pytest.mark.parametrize("when", ["building", "moving"])
def test_after_a_killed_build(build: Build, tmp_path: Path, when: str) -> None:
    target, partial = tmp_path / "engine", tmp_path / "engine.partial"
    build(target, "old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(target), when]).returncode == 9
    assert target.exists() == (when == "building") and (partial / MARK).is_file()
    with Workspace(target) as workspace:
        assert content(target) == "old"  # the engine that had made way is back
        assert workspace.has("fbank", "key") and workspace.has("log_mel", "old")
        assert not (partial / REPLACED).exists()
    build(target)
    assert content(target) == "new" and [path.name for path in tmp_path.iterdir()] == ["engine"]


def test_two_builds_of_one_name(build: Build, tmp_path: Path) -> None:
    target = tmp_path / "engine"
    with Workspace(target), pytest.raises(Omni2Error, match="another build is writing"):
        build(target)
    assert list(tmp_path.iterdir()) == []
    build(target)
    assert content(target) == "new"


def test_a_target_that_cannot_make_way_is_refused_before_the_work(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "engine"
    build(target, "old")
    rename = os.rename

    def sticky(source: Path, place: Path) -> None:
        if Path(source) == target:
            raise OSError(errno.EPERM, "Operation not permitted")
        rename(source, place)

    monkeypatch.setattr(os, "rename", sticky)
    with pytest.raises(Omni2Error, match=r"engine cannot be replaced: Operation not permitted") as refused:
        Workspace(target)
    assert "-o" in refused.value.remedy
    assert content(target) == "old" and [path.name for path in tmp_path.iterdir()] == ["engine"]


@only_unix
@pytest.mark.parametrize("full", [True, False])
def test_a_mount_point_is_refused_before_the_work(build: Build, tmp_path: Path, full: bool) -> None:
    target, volume = tmp_path / "engine", tmp_path / "volume"
    for folder in (target, volume):
        folder.mkdir()
    if full:
        build(volume, "old")
    if subprocess.run(["mount", "--bind", volume, target], capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        with pytest.raises(Omni2Error, match="cannot be replaced: Device or resource busy") as refused:
            Workspace(target)
        assert "below it" in refused.value.remedy
        assert not full or content(target) == "old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["engine", "volume"]
        if not full:
            build(target / "inside")  # what the remedy says
            assert content(volume / "inside") == "new"
    finally:
        subprocess.run(["umount", target], check=True)


def test_an_unfinished_build_is_told_by_its_mark(build: Build, tmp_path: Path) -> None:
    """Its folder copied elsewhere is one, too; without the mark it is the user's."""
    with Workspace(tmp_path / "engine") as workspace:
        workspace.build("fbank", "key", lambda folder: (folder / "fbank.onnx").write_text("kept"))
    copied = Path(shutil.copytree(tmp_path / "engine.partial", tmp_path / "other.partial"))
    with Workspace(tmp_path / "other") as workspace:
        assert workspace.has("fbank", "key")
    (copied / MARK).unlink()
    with pytest.raises(Omni2Error, match="in the way"):
        Workspace(tmp_path / "other")
    assert (copied / "fbank.onnx").read_text() == "kept"
