"""Pausing while another process measures, and stopping when told to."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from omni2_training import quiet
from omni2_training.quiet import VARIABLE, StopRequest, pause_while_measured

from ..waiting import SOON, let_others_run


def test_waits_for_an_exclusive_lock_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock"
    monkeypatch.setenv(VARIABLE, str(lock))
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        pause_while_measured()  # another's shared lock does not stop it
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=pause_while_measured, daemon=True)
        waiting.start()
        let_others_run()
        assert waiting.is_alive()
        fcntl.flock(other, fcntl.LOCK_UN)
        waiting.join(SOON)
        assert not waiting.is_alive()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and it holds nothing afterwards


def test_a_signal_is_a_request_and_ends_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = StopRequest()
        assert not stop
        monkeypatch.setenv(VARIABLE, str(tmp_path / "lock"))
        with (tmp_path / "lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            pause_while_measured(stop)  # the lock stays held: only the signal ends the pause
        assert stop
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def test_a_session_of_lowest_priority_gives_way_as_a_group_too() -> None:
    code = "import os, pathlib; print(os.nice(0)); print(pathlib.Path('/proc/self/autogroup').read_text())"
    if not quiet.AUTOGROUP.is_file():
        pytest.skip("needs Linux's groups of sessions; run this on a kernel with them")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
        preexec_fn=quiet.lowest_priority,
    )
    nice, group = done.stdout.split(maxsplit=1)
    assert nice == "19" and group.split()[-1] == "19"
