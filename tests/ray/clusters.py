"""Ray with replicas in processes of their own, none of which outlives its test."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from .talking import SOON

CORES = 8  # that Ray is told this machine has, so that replicas find room
GAVE_UP = "The current node timed out during startup"
STAND_INS = Path(__file__).parent / "stand_ins"


class Cluster:
    """A command that starts Ray, and all processes below it.

    Args:
        command: to run.
        folder: for what Ray writes, and for the stand-ins' files; a short path.
        started: of a line that it prints once it is up.
    """

    def __init__(self, command: Sequence[str], folder: Path, started: str) -> None:
        self._folder = folder
        self.environment = os.environ | {
            "OMNI2_TEST_DEVICE": str(folder),
            "PYTHONPATH": os.pathsep.join([str(STAND_INS), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "RAY_TMPDIR": str(folder),
            "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": CORES}),
            "RAY_agent_register_timeout_ms": "300000",
            "RAY_AUTH_MODE": "token",
            "RAY_DEDUP_LOGS": "0",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "omni2_serve.ray_proxy:middlewares",
            "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
        }
        self.lines: list[str] = []
        self._began: set[psutil.Process] = set()
        while not self._start(command, started):  # Ray itself waits 30 s for its parts, too little on a busy machine
            self.stop()
            assert GAVE_UP in "".join(self.lines), "".join(self.lines[-30:])
            self.lines.clear()

    def _start(self, command: Sequence[str], started: str) -> bool:
        """Whether it has come up; otherwise it has ended."""
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment
        )
        self._began.add(psutil.Process(self._process.pid))
        up, over = threading.Event(), threading.Event()
        threading.Thread(target=self._read, args=(self._process, started, up, over), daemon=True).start()
        eventually(lambda: up.is_set() or over.is_set())
        return up.is_set()

    def _read(self, process: subprocess.Popen[str], started: str, up: threading.Event, over: threading.Event) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line)
            if started in line:
                up.set()
        over.set()

    def _processes(self) -> set[psutil.Process]:
        """All that this cluster has ever been seen to run."""
        for process in list(self._began):
            try:
                self._began.update(process.children(recursive=True))
            except psutil.NoSuchProcess:
                continue
        return self._began

    def replicas(self) -> list[int]:
        """Process ids of those that run, the oldest first."""
        found = []
        for process in self._processes():
            try:
                if "ServeReplica" in " ".join(process.cmdline()):
                    found.append((process.create_time(), process.pid))
            except psutil.Error:
                continue
        return [pid for _, pid in sorted(found)]

    def hold(self, pid: int) -> None:
        """Let the answers of a replica wait."""
        (self._folder / f"hold-{pid}").touch()

    def release(self, pid: int) -> None:
        """Let them go on."""
        (self._folder / f"hold-{pid}").unlink()

    def lose(self, pid: int) -> None:
        """The replica's device is lost."""
        (self._folder / f"lost-{pid}").touch()

    def terminate(self) -> None:
        """As an operator stops it."""
        self._processes()
        self._process.send_signal(signal.SIGTERM)

    def join(self) -> int:
        """Wait for the command to end; its exit status."""
        return self._process.wait(SOON)

    def stop(self) -> None:
        """End everything."""
        began = self._processes()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        for process in began:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs([process for process in began if process.pid != self._process.pid], timeout=SOON)
        self._process.wait()


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def eventually(holds: Callable[[], object]) -> None:
    """Wait for a state that no event tells."""
    end = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < end, "it has not come to that"
        time.sleep(0.05)


def command(*arguments: object) -> list[str]:
    """`omni2-engine …`."""
    return [sys.executable, "-m", "omni2_engine", *map(str, arguments)]
