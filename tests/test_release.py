"""The step of the release workflow that reads the changelog, run as it stands."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the workflow's steps are for bash")

CHANGELOG = """# Changelog

## [Unreleased]

- Not this.

## [1.2.0] - 2026-12-24

### Added

- The thing [that](https://example.org/) matters.

## [1.2] - 2026-11-29

## [1.1.0] - 2026-11-28

- Not this either.
"""


def notes_of(repository: Path, folder: Path, version: str, tag: str) -> str | None:
    """What the step writes for a tag where pyproject.toml has that version; None: it fails."""
    workflow = yaml.safe_load((repository / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    (script,) = (step["run"] for step in workflow["jobs"]["notes"]["steps"] if "run" in step)
    (folder / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    (folder / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n', encoding="utf-8")
    environment = os.environ | {"GITHUB_REF_NAME": tag}
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True)
    return (folder / "notes.md").read_text(encoding="utf-8") if done.returncode == 0 else None


def test_a_release_says_its_section_of_the_changelog(repository: Path, tmp_path: Path) -> None:
    notes = notes_of(repository, tmp_path, "1.2.0", "v1.2.0")
    assert notes is not None
    assert notes.strip() == "### Added\n\n- The thing [that](https://example.org/) matters."


@pytest.mark.parametrize(
    ("version", "tag"),
    [
        pytest.param("1.2.0", "v1.1.0", id="the tag is of another version"),
        pytest.param("1.3.0", "v1.3.0", id="no section"),
        pytest.param("1.2", "v1.2", id="an empty section"),
    ],
)
def test_a_release_that_does_not_fit_is_refused(repository: Path, tmp_path: Path, version: str, tag: str) -> None:
    assert notes_of(repository, tmp_path, version, tag) is None
