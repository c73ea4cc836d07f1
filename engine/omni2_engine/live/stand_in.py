"""Until `Session.prepare` and `Session.interrupt` are there."""

from __future__ import annotations

import time
from typing import Any

from omni2_engine.errors import SettingError
from omni2_engine.sessions.session import Session


def stand_in_prepare(session: Session, **arguments: Any) -> Any:
    """No speculation."""
    raise SettingError("there is no speculation yet")


def stand_in_interrupt(session: Session, heard: float) -> None:
    """Cancel, wait, truncate."""
    session.cancel()
    while True:
        try:
            session.truncate(1000 * heard)
            return
        except SettingError as error:
            if "running" not in str(error):
                raise
            time.sleep(0.001)
