"""The server that is measured, and what it says itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omni2_bench.common.server_process import ServerProcess


@contextmanager
def served(engine: Path, sessions: int, speculate: bool, threads: int | None) -> Iterator[ServerProcess]:
    """Run `omni2-engine serve`.

    Args:
        engine: engine directory.
        sessions: conversations at once.
        speculate: begin answers when a speaker may be done.
        threads: of every graph; all that there are if None.

    Raises:
        BackendError: it does not start.
    """
    options = ["--drain", "1", "--sessions", str(sessions), "--speculate" if speculate else "--no-speculate"]
    options += [] if threads is None else ["--threads", str(threads)]
    with tempfile.TemporaryDirectory() as folder, ServerProcess(engine, Path(folder) / "log", *options) as process:
        yield process


def first_sounds(server: ServerProcess) -> tuple[float, int]:
    """Of the server's own metrics: seconds from decisions to first sounds, all together, and how many they are."""
    said, name = server.scrape(), "omni2_first_sound_seconds"
    return said.total(f"{name}_sum"), int(said.total(f"{name}_count"))
