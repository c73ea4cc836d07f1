"""Has a plan built by a process of its own, see `worker`."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from omni2_engine.errors import Omni2Error
from omni2_export.tensorrt.lowered import Lowered
from omni2_export.tensorrt.worker import Built, Order

COMMAND = [sys.executable, "-m", "omni2_export.tensorrt.worker"]
KILLED = -getattr(signal, "SIGKILL", 9)  # as a process's exit code; Windows has no signals
LAST_WORDS = 3  # lines of a crashed process's standard error


def have_built(order: Order) -> Built:
    """Build a plan.

    Raises:
        Omni2Error: it cannot be built, or its process ended before it was.
    """
    with (
        tempfile.TemporaryFile("w+") as errors,
        # in a session of its own: an interrupt at the terminal is for us, and we end it
        subprocess.Popen(
            COMMAND, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        ) as worker,
    ):
        assert worker.stdin and worker.stdout
        try:
            _send(worker.stdin, order.to_json() + "\n")
            answer = worker.stdout.read()
            code = worker.wait()
        except BaseException:
            worker.kill()
            raise
        errors.seek(0)
        words = errors.read()
    if code:
        raise _crash(order, code, words)
    result = json.loads(answer)
    if "problem" in result:
        raise Omni2Error(result["problem"], result["remedy"])
    found = result["built"]
    return Built(**{**found, "lowered": Lowered.from_json(found["lowered"])})


def _send(pipe: IO[str], text: str) -> None:
    """Write to a process, which may have ended by now: its exit code and last words then say why."""
    try:
        pipe.write(text)
        pipe.flush()
    except BrokenPipeError:
        with contextlib.suppress(BrokenPipeError):  # closing tries once more to write
            pipe.close()


def _crash(order: Order, code: int, words: str) -> Omni2Error:
    name = f"building {Path(order.plan).stem} for {order.target}"
    if code == KILLED:
        return Omni2Error(f"{name} was killed by the system, mostly for want of memory", "build on a larger machine")
    last = " ".join(words.split("\n")[-LAST_WORDS:]).strip() or "it said nothing"
    return Omni2Error(f"{name} ended with exit code {code}: {last}", "report this; finished stages are kept")
