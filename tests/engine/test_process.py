"""After `os.fork()` in a process with a loaded engine: an error that says so, and an end without hanging."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..waiting import SOON

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# in a process of its own: the tests' own has other engines and threads
PROGRAM = """
import asyncio, gc, os, sys
from omni2_engine import Engine
from omni2_engine.errors import BackendError

path, question, case = sys.argv[1:]
engine = Engine.load(path, threads=2, warm_up=False)
options = {"max_new_tokens": 6, "max_last_write": 20}
session = engine.session(**options)
samples = sum(len(chunk.pcm) for chunk in session.stream(question))
turn = engine.stream(question, **options)
next(turn)  # at the time of the fork this one runs

async def one():
    async for chunk in engine.astream(question, **options):
        pass

def child():
    if case == "engine":
        engine.stream(question, **options)
    elif case == "session":
        session.stream(question)
    elif case == "open":
        engine.session()
    elif case == "asyncio":
        asyncio.run(one())
    elif case == "own":
        again = Engine.load(path, threads=2, warm_up=False)
        assert sum(len(chunk.pcm) for chunk in again.stream(question, **options)) == samples
    elif case == "close":
        turn.close()
        session.cancel()
        session.close()
    elif case == "delete":
        for name in ("turn", "session", "engine"):
            del globals()[name]
        gc.collect()

if case == "multiprocessing":
    import multiprocessing
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    print("child", process.exitcode)
elif (pid := os.fork()) == 0:
    try:
        child()
    except BackendError as error:
        print(error)
    sys.exit(7)  # takes everything down as at the end of a program
else:
    print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    list(turn)  # nothing of it is harmed in the parent
    print("parent", sum(len(chunk.pcm) for chunk in session.stream(question)) > 0)
"""


def run(engine: Path, question: Path, case: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(engine), str(question), case]
    return subprocess.run(command, capture_output=True, text=True, timeout=SOON)


@pytest.mark.parametrize("case", ["engine", "session", "open", "asyncio"])
def test_the_childs_first_call_is_an_error_that_says_so(tiny_engine_dir: Path, question: Path, case: str) -> None:
    done = run(tiny_engine_dir, question, case)
    assert done.stderr == "" and done.returncode == 0
    assert "this is its forked child" in done.stdout and "load the engine in the child" in done.stdout
    assert "child 7\nparent True" in done.stdout


@pytest.mark.parametrize("case", ["nothing", "own", "close", "delete"])
def test_the_child_ends(tiny_engine_dir: Path, question: Path, case: str) -> None:
    done = run(tiny_engine_dir, question, case)
    assert (done.stdout, done.stderr) == ("child 7\nparent True\n", "")


def test_a_process_of_multiprocessing_ends(tiny_engine_dir: Path, question: Path) -> None:
    done = run(tiny_engine_dir, question, "multiprocessing")
    assert (done.stdout, done.stderr) == ("child 0\n", "")
