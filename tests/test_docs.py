"""The documentation: every link leads somewhere, and the site builds without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


def pages(repository: Path) -> list[Path]:
    return [*repository.glob("*.md"), *(repository / "docs").glob("*.md"), repository / "training" / "MODEL_CARD.md"]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as they are made on the site and by repository hosts."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links_lead_somewhere(repository: Path) -> None:
    broken = []
    for page in pages(repository):
        for target in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.relative_to(repository)}: {target}")
    assert broken == []


def test_every_page_is_in_the_index(repository: Path) -> None:
    named = set(re.findall(r"[\w]+\.md", (repository / "mkdocs.yml").read_text(encoding="utf-8")))
    assert named == {page.name for page in (repository / "docs").glob("*.md")}


def test_the_site_builds(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs mkdocs; pip install '.[docs]' to run this test")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in ("Engine", "Session", "Answer", "Chunk", "Sampling", "BusyError"):
        assert f'id="omni2_engine.{name}' in api or f'id="omni2_engine.errors.{name}' in api, name
