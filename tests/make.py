"""What tests need of C++: built in `build/`, for all of them together, and anew where a source, the
compiler or its flags have changed."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

TESTS = Path(__file__).resolve().parent
FLAGS = ("CXX", "CXXFLAGS", "SANITIZE")  # that make takes from the environment
LONGEST = 1500.0  # seconds that a compiler is given, on a machine however busy


def make(source: str, *arguments: str) -> Path:
    """Run make in a folder of the tests; skips the test where there is no compiler.

    Args:
        source: name of the folder.
        arguments: goals and options.

    Returns:
        The folder of what it has built.
    """
    if not shutil.which("make") or not shutil.which(_compiler()[0]):
        pytest.skip("needs make and a C++17 compiler; install g++ and make to run this test")
    folder = folder_of(source)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # test processes that run side by side
        command = ["make", "-C", str(TESTS / source), *arguments, f"BUILD={folder}"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def folder_of(source: str) -> Path:
    """Where it is built: make compares the times of files, and would take objects of other flags for its own."""
    asked = [*_compiler(), "--version"]
    version = subprocess.run(asked, capture_output=True, text=True, timeout=LONGEST, check=True).stdout
    kind = hashlib.sha256("\0".join([version, *(os.environ.get(name, "") for name in FLAGS)]).encode()).hexdigest()
    return TESTS.parent / "build" / f"tests-{source}-{kind[:8]}"


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "g++"))
