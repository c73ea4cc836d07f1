"""The page's modules that need no browser: resampling, buffers, the conversation as it is shown."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ..waiting import SOON

HERE = Path(__file__).parent
OLDEST = 20  # its test runner is built in, and knows what the modules use


def node() -> str:
    """Node.js, or skip."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("the page's modules are tested by Node.js, which is not installed")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST:
        pytest.skip(f"the page's modules are tested by Node.js {OLDEST} or newer; here is {version.strip()}")
    return program


@pytest.mark.parametrize("path", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_modules(path: Path) -> None:
    done = subprocess.run([node(), "--test", str(path)], capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# tests 0" not in done.stdout


def test_the_demo_and_the_page_offer_the_same_questions(repository: Path) -> None:
    from omni2_bench.demo.next_steps import QUESTIONS

    page = (repository / "serve" / "omni2_serve" / "page" / "questions.js").read_text(encoding="utf-8")
    assert [question for question in QUESTIONS if f'"{question}"' not in page] == []
