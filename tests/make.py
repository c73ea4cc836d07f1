"""What tests need of C++: built in `build/`, for all of them together, and anew where a source has changed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

TESTS = Path(__file__).resolve().parent


def make(source: str, *arguments: str) -> Path:
    """Run make in a folder of the tests; skips the test where there is no compiler.

    Args:
        source: name of the folder.
        arguments: goals and options.

    Returns:
        The folder of what it has built.
    """
    if not shutil.which("make") or not shutil.which(shlex.split(os.environ.get("CXX", "g++"))[0]):
        pytest.skip("needs make and a C++17 compiler; install g++ and make to run this test")
    folder = TESTS.parent / "build" / f"tests-{source}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # test processes that run side by side
        command = ["make", "-C", str(TESTS / source), *arguments, f"BUILD={folder}"]
        run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder
