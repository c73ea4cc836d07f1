"""What a server's process holds, looked at every few seconds and written down at once."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from omni2_bench.common.server_process import ServerProcess
from omni2_bench.common.watch import watching


@dataclass(frozen=True)
class HeldSample:
    """One look at a server.

    Attributes:
        seconds: since sampling began.
        resident, anonymous: bytes of memory (`VmRSS`, `RssAnon`).
        threads, descriptors: of the process.
        sessions, waiting: open sessions, and turns without a sound yet.
        memory: bytes that conversations hold.
        answers: that have ended, finished or not.
        refused: sessions and requests.
    """

    seconds: float
    resident: int
    anonymous: int
    threads: int
    descriptors: int
    sessions: int
    waiting: int
    memory: int
    answers: int
    refused: int

    @property
    def busy(self) -> bool:
        """Whether there is a session, a turn that waits, or memory of conversations."""
        return bool(self.sessions or self.waiting or self.memory)


def look(server: ServerProcess, seconds: float) -> HeldSample:
    """Look at a server; Linux alone has what is read here.

    Raises:
        OSError: it has ended.
    """
    lines = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    descriptors = len(os.listdir(f"/proc/{server.pid}/fd"))  # before the connection that is made here
    said = server.scrape()
    return HeldSample(
        seconds=round(seconds, 3),
        resident=1024 * int(status["VmRSS"][0]),
        anonymous=1024 * int(status["RssAnon"][0]),
        threads=int(status["Threads"][0]),
        descriptors=descriptors,
        sessions=int(said.total("omni2_sessions")),
        waiting=int(said.total("omni2_waiting_turns")),
        memory=int(said.total("omni2_memory_bytes")),
        answers=int(said.total("omni2_turns_total")),
        refused=int(said.total("omni2_refused_total")),
    )


@contextmanager
def sampled(
    server: ServerProcess, path: Path, every: float, ended: Callable[[], object]
) -> Iterator[Sequence[HeldSample]]:
    """Look at a server until the block is left; gives the samples, which grow meanwhile.

    Args:
        server: to look at.
        path: CSV file, a line a sample, each written at once.
        every: seconds between two looks.
        ended: called once if the server cannot be looked at any more.
    """
    samples: list[HeldSample] = []
    began = time.monotonic()
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [field.name for field in fields(HeldSample)])
        rows.writeheader()

        def take() -> None:
            try:
                samples.append(look(server, time.monotonic() - began))
            except OSError:
                ended()
                raise
            rows.writerow(asdict(samples[-1]))
            file.flush()

        with watching(take, every):
            yield samples
