"""What turns that were prepared before they were asked for have saved and wasted."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace


@dataclass
class PreparedTurns:
    """Counts of an engine's prepared turns, see `Session.prepare`. Any thread may use it.

    Attributes:
        prepared: that were begun ahead.
        refused: for which there was no memory left over; they begin when they are asked for.
        committed: of those begun, that were asked for.
        taken_back: of those begun, that were not, or whose memory others needed.
        saved: seconds of work that had been done when turns were asked for.
        wasted: seconds of work on turns that were taken back.
    """

    prepared: int = 0
    refused: int = 0
    committed: int = 0
    taken_back: int = 0
    saved: float = 0.0
    wasted: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, **more: float) -> None:
        """Add to attributes, by their names."""
        with self._lock:
            for name, value in more.items():
                setattr(self, name, getattr(self, name) + value)

    def now(self) -> PreparedTurns:
        """A copy that changes no more."""
        with self._lock:
            return replace(self, _lock=threading.Lock())
