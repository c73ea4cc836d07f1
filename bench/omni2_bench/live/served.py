"""The server as users start it: a process of its own, told by its address."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omni2_engine.errors import BackendError

ADDRESS = re.compile(r"listens at http://(\S+?),")
STOPS = 10  # seconds for it to stop
COUNTED = ("omni2_first_sound_seconds_sum", "omni2_first_sound_seconds_count")


@contextmanager
def served(engine: Path, sessions: int, speculate: bool, threads: int | None) -> Iterator[str]:
    """Run `omni2-engine serve`; gives its address, "127.0.0.1:port".

    Args:
        engine: engine directory.
        sessions: conversations at once.
        speculate: begin answers when a speaker may be done.
        threads: of every graph; all that there are if None.

    Raises:
        BackendError: it does not start.
    """
    command = [sys.executable, "-m", "omni2_engine", "serve", str(engine), "--port", "0", "--drain", "1"]
    command += ["--sessions", str(sessions), "--speculate" if speculate else "--no-speculate"]
    command += [] if threads is None else ["--threads", str(threads)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            assert process.stdout is not None
            found = next(filter(None, map(ADDRESS.search, process.stdout)), None)
            if found is None:
                said.seek(0)
                last = (said.read().strip().splitlines() or ["it said nothing"])[-1]
                raise BackendError(f"the server did not start: {last}", "start it by hand with `omni2-engine serve`")
            yield found[1]
        finally:
            process.terminate()
            try:
                process.wait(STOPS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def first_sounds(address: str) -> tuple[float, int]:
    """Of the server's own metrics: seconds from decisions to first sounds, all together, and how many they are."""
    with urllib.request.urlopen(f"http://{address}/metrics") as page:
        lines = page.read().decode().splitlines()
    values = dict(line.split() for line in lines if line.startswith(COUNTED))
    return float(values[COUNTED[0]]), int(float(values[COUNTED[1]]))
