"""Long work that stays out of the way: it pauses while another process holds a lock, and saves when it is told to stop.

Name a lock file in `OMNI2_QUIET_LOCK`; a measurement holds it exclusively (`flock FILE COMMAND`), and training or
synthesis waits between two steps until it is free again. Without the variable nothing waits.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

AUTOGROUP = Path("/proc/self/autogroup")
VARIABLE = "OMNI2_QUIET_LOCK"
POLL = 0.2  # seconds between two looks at a lock that is held


class StopRequest:
    """True once SIGTERM or SIGINT has come; a second SIGINT ends the process at once."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True

    def __bool__(self) -> bool:
        return self._asked


def lowest_priority() -> None:
    """Give way to everything else on the machine.

    Linux may share the processor between sessions without regard to the priorities in them: the session gives way too.
    """
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    with suppress(OSError):  # another system, or one without such groups
        AUTOGROUP.write_text("19", encoding="ascii")


def pause_while_measured(stop: StopRequest | None = None) -> None:
    """Return at once, or as soon as no process holds the lock exclusively.

    Args:
        stop: ends the pause too, so that a process that waits can be told to leave.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    with open(path, "a") as file:
        while not stop:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(POLL)
