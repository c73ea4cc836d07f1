"""`make test-gpu BUDGET=…`: the order of the checks, the end in time, and the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
import sys
sys.path.insert(0, {repository!r})
from pathlib import Path
from tests.gpu.budget import Budget
def pytest_configure(config):
    config.pluginmanager.register(Budget({seconds}, Path({folder!r})))
"""
FILES = {
    "test_latency.py": "def test_last(): pass",
    "test_alone.py": "def test_first(): pass",
    "test_start.py": "def test_second(): assert False, 'why it failed'",
}


def checks(folder: Path, repository: Path, seconds: float | None, **files: str) -> tuple[str, dict[str, object]]:
    """Output and report of a run."""
    (folder / "conftest.py").write_text(
        CONFTEST.format(repository=str(repository), seconds=seconds, folder=str(folder))
    )
    for name, text in (FILES | files).items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", str(folder)]
    done = subprocess.run([*command, "-c", "/dev/null"], capture_output=True, text=True, cwd=folder)
    return done.stdout, json.loads((folder / "gpu-report.json").read_text())


def test_the_most_worthy_come_first_and_all_is_reported(tmp_path: Path, repository: Path) -> None:
    said, report = checks(tmp_path, repository, None)
    assert [said.index(name) for name in ("test_first", "test_second", "test_last")] == sorted(
        said.index(name) for name in ("test_first", "test_second", "test_last")
    )
    found = report["checks"]
    assert isinstance(found, dict) and [check["outcome"] for check in found.values()] == ["passed", "failed", "passed"]
    assert "why it failed" in str(found) and report["not reached"] == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no interval timer, and GPUs need Linux")
def test_what_runs_is_ended_and_nothing_more_is_begun(tmp_path: Path, repository: Path) -> None:
    endless = "def test_second():\n    while True: pass"
    said, report = checks(tmp_path, repository, 1.0, **{"test_start.py": endless})
    assert "1 passed, 2 skipped" in said or "3 skipped" in said  # on a machine so slow that nothing is begun in time
    assert said.count("not reached within 1 s") >= 2 and "to send back:" in said
    assert report["budget"] == 1.0 and len(report["not reached"]) >= 2  # type: ignore[arg-type]
