"""The server as users start it: a process of its own on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from types import MappingProxyType, TracebackType

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from omni2_engine.errors import BackendError

ADDRESS = re.compile(r"listens at http://(\S+?),")
PATIENCE = 60.0  # seconds for an answer of /metrics
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Scrape:
    """What /metrics said.

    Args:
        samples: all of them.
    """

    samples: list[Sample]

    def total(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name that have these labels; 0 if there is none."""
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def by(self, label: str, name: str) -> dict[str, float]:
        """Values of the samples of this name by a label of theirs."""
        return {sample.labels[label]: sample.value for sample in self.samples if sample.name == name}


class ServerProcess:
    """`omni2-engine serve` on a free port; a context manager that ends it.

    Args:
        engine: engine directory.
        log: file that it writes its log to.
        options: of the command.
        grace: seconds it gets to stop before it is killed.
        environment: variables it gets beside those of this process; an API key among them is used here, too.

    Attributes:
        address: "127.0.0.1:port", once it listens.
        pid: of the process.

    Raises:
        BackendError: it does not start.
    """

    def __init__(
        self, engine: Path, log: Path, *options: str, grace: float = 10.0, environment: Mapping[str, str] = NOTHING
    ) -> None:
        command = [sys.executable, "-m", "omni2_engine", "serve", str(engine), "--port", "0", *options]
        self._grace, self._headers = grace, dict[str, str]()
        if key := environment.get("OMNI2_API_KEY"):
            self._headers["Authorization"] = f"Bearer {key}"
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=said, text=True, env=os.environ | dict(environment)
            )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        found = next(filter(None, map(ADDRESS.search, self._process.stdout)), None)
        if found is None:
            self._process.wait()
            last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise BackendError(f"the server did not start: {last}", "start it by hand with `omni2-engine serve`")
        self.address = found[1]

    @property
    def url(self) -> str:
        """Where it speaks the Realtime protocol."""
        return f"ws://{self.address}/v1/realtime?model=omni2"

    def scrape(self) -> Scrape:
        """Its counters; when this returns the server has closed the connection, too.

        Raises:
            OSError: it does not answer, or refuses.
        """
        connection = HTTPConnection(self.address, timeout=PATIENCE)
        connection.request("GET", "/metrics", headers=self._headers | {"Connection": "close"})
        with connection.sock.dup() as socket:  # `connection` lets go of its own with the last byte of the answer
            answer = connection.getresponse()
            text = answer.read().decode()
            socket.recv(1)  # nothing comes but the end
        if answer.status != HTTPStatus.OK:
            raise OSError(f"/metrics says {answer.status} {answer.reason}")
        return Scrape([sample for family in text_string_to_metric_families(text) for sample in family.samples])

    def wait(self) -> int:
        """Wait until it has ended by itself; returns its exit code, negative for the signal that killed it."""
        return self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def stop(self) -> int:
        """Tell it to stop, and wait until it has; returns what `wait` does."""
        self._process.terminate()
        try:
            return self._process.wait(self._grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.kill()
