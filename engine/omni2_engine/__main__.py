"""Where the command line begins: light, so that Ctrl-C is answered while the libraries are loaded."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


def main() -> None:
    """Run `omni2-engine`."""
    signal.signal(signal.SIGINT, _leave)
    from omni2_engine.cli.app import main as command_line  # a second or more

    command_line()


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: nothing has begun, and a library may swallow an exception that is raised in its import."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
