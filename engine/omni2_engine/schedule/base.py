"""What runs the steps of all sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from omni2_engine.turn.queue import SessionQueue

Failed = Callable[[BaseException], None]


class Schedule(Protocol):
    """Runs the steps of all sessions."""

    def open(self, failed: Failed, run_ahead: float) -> SessionQueue:
        """A queue for the steps of a session.

        Args:
            failed: called with what a step of the session raised.
            run_ahead: seconds of sound beyond which the session rests while other sessions are being answered.
        """
        ...

    def close(self) -> None:
        """Close all sessions, and end what runs them."""
        ...
