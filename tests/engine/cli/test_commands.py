"""Commands that the floors above add."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from omni2_engine.cli import app


def metadata(folder: Path, name: str, *commands: str) -> PathDistribution:
    """A distribution that adds these commands."""
    path = folder / f"{name}.egg-info"
    path.mkdir()
    (path / "PKG-INFO").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 0.0.1\n")
    (path / "entry_points.txt").write_text("\n".join(["[omni2_engine.commands]", *commands]))
    return PathDistribution(path)


def test_the_first_on_the_path_counts_whose_module_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        metadata(tmp_path, "stale", "gone = no_such_package.cli:register", "bench = omni2_bench.old_place:register"),
        metadata(tmp_path, "current", "bench = omni2_bench.cli:register"),
        metadata(tmp_path, "later", "bench = omni2_engine.cli.talk:register", "other = omni2_engine.cli.talk:register"),
    ]
    monkeypatch.setattr(app, "distributions", lambda: found)
    commands = {name: point.value for name, point in app._commands_above().items()}
    assert commands == {"bench": "omni2_bench.cli:register", "other": "omni2_engine.cli.talk:register"}


def test_an_earlier_builds_metadata_in_the_folder_hides_no_command(tmp_path: Path) -> None:
    metadata(tmp_path, "omni2_engine", "bench = omni2_bench.cli:register", "old = omni2_bench.old_place:register")
    command = [sys.executable, "-m", "omni2_engine", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    for name in ("bench", "build", "serve", "stream"):
        assert f" {name} " in done.stdout
