"""Commands that the floors above add."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_an_earlier_builds_metadata_in_the_folder_hides_no_command(tmp_path: Path) -> None:
    stale = tmp_path / "omni2_engine.egg-info"
    stale.mkdir()
    (stale / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: omni2-engine\nVersion: 0.0.1\n")
    (stale / "entry_points.txt").write_text("[omni2_engine.commands]\nbench = omni2_bench.cli:register\n")
    command = [sys.executable, "-m", "omni2_engine", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    for name in ("bench", "build", "serve", "stream"):
        assert f" {name} " in done.stdout
