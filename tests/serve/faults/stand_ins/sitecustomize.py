"""Loaded by Python itself in a server: answers are held while the file that OMNI2_TEST_HOLD names is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def hold_answers(hold: Path) -> None:
    """See `tests.held_answers.holding`."""
    from tests.held_answers import holding

    from omni2_serve import engine_host

    plain = engine_host.engine_host

    def held(*arguments: Any, **options: Any) -> Any:
        return holding(plain(*arguments, **options), held=hold.exists, short=True)

    engine_host.engine_host = held


if hold := os.environ.get("OMNI2_TEST_HOLD"):
    hold_answers(Path(hold))
