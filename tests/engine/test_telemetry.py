"""An answer writes its output and nothing else, and asks no other host: ONNX Runtime's usage data are off."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..waiting import SOON

VARIABLE = "ORT_DISABLE_TELEMETRY"
PACKAGES = {"engine": "omni2_engine", "export": "omni2_export", "bench": "omni2_bench", "training": "omni2_training"}
WRITING = ("creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat")
NETWORK = ("connect", "sendto", "sendmsg", "sendmmsg")
CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
STREAM = "import sys; from omni2_engine.cli.app import run; sys.exit(run(sys.argv[1:]))"


def environment(**changes: str) -> dict[str, str]:
    """This process's, without what the tests themselves set, and without places to write to."""
    kept = {name: value for name, value in os.environ.items() if name != VARIABLE and not name.startswith("XDG_")}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **changes}


@pytest.mark.parametrize("folder", PACKAGES)
@pytest.mark.parametrize(("given", "kept"), [({}, "1"), ({VARIABLE: "0"}, "0")])
def test_the_choice_is_made_before_onnxruntime_is_imported(
    folder: str, given: dict[str, str], kept: str, repository: Path
) -> None:
    """Python imports a package before any module in it. Who sets the variable keeps the choice."""
    assert any("onnxruntime" in path.read_text() for path in (repository / folder).rglob("*.py"))
    program = f"""
import os, sys
class Watch:
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            print("at the import:", os.environ.get({VARIABLE!r}))
sys.meta_path.insert(0, Watch())
import {PACKAGES[folder]}
import onnxruntime
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment(**given)
    )
    assert done.stdout == f"at the import: {kept}\n"


@pytest.fixture(scope="module")
def strace() -> str:
    """strace, where it may look at a process."""
    found = shutil.which("strace")
    if not found or subprocess.run([found, "-o", os.devnull, "true"], capture_output=True).returncode:
        pytest.skip("what a process writes and asks is seen by strace: install it, and let it trace (ptrace)")
    return found


def calls(folder: Path) -> Iterator[tuple[str, str, bool]]:
    """(system call, arguments, whether it succeeded) of every thread."""
    for trace in folder.iterdir():  # a file for each thread: in one for all, calls are cut where others come between
        for line in trace.read_text(errors="replace").splitlines():
            if found := CALL.match(line):
                yield found["name"], found["arguments"], not found["result"].startswith("-")


def test_an_answer_writes_its_output_and_asks_no_host(
    strace: str, tiny_engine_dir: Path, question: Path, tmp_path: Path
) -> None:
    home, output, traces = tmp_path / "home", tmp_path / "output", tmp_path / "traces"
    for folder in (home, output, traces):
        folder.mkdir()
    watch = [strace, "-ff", "-qq", "-s", "4096", "-o", str(traces / "thread")]
    watch += ["-e", f"trace=open,openat,{','.join(WRITING + NETWORK)}"]
    stream = ["stream", str(tiny_engine_dir), str(question), "-o", str(output / "answer.wav"), "-q"]
    stream += ["--max-new-tokens", "5", "--max-last-write", "5"]
    done = subprocess.run(
        [*watch, sys.executable, "-c", STREAM, *stream],
        capture_output=True,
        text=True,
        env=environment(HOME=str(home)),
        cwd=output,
        timeout=SOON,
    )
    assert done.returncode == 0, done.stderr
    seen = list(calls(traces))
    assert [call for call in seen if call[0] in NETWORK] == []
    written = [
        (name, arguments)
        for name, arguments, succeeded in seen
        if succeeded and (name in WRITING or re.search(r"O_WRONLY|O_RDWR|O_CREAT", arguments))
    ]
    elsewhere = [call for call in written if f'"{output}/' not in call[1] and '"/dev/' not in call[1]]
    assert written and elsewhere == []
    assert [path.name for path in output.iterdir()] == ["answer.wav"] and list(home.iterdir()) == []
