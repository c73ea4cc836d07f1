"""What callers saw."""

from __future__ import annotations

from dataclasses import dataclass, field

from omni2_engine.turn.playout import playback


@dataclass
class HeardTurn:
    """One question and its answer, as its caller saw them; moments in seconds of the load's clock.

    Attributes:
        speech_ended: when the last voiced frame was sent.
        decided: when the server said that the speech had ended.
        ready, durations: when each piece of sound came, and its seconds.
        ended: when the response was done.
        interrupted: when the first voiced frame of an interruption was sent.
        status: "completed", "interrupted", "vanished", "failed" or "unanswered".
        problem: what went wrong.
        noticed: when the server said that it hears the interruption; a client falls silent then.
    """

    speech_ended: float = 0.0
    decided: float | None = None
    ready: list[float] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    ended: float | None = None
    interrupted: float | None = None
    status: str = "unanswered"
    problem: str = ""
    noticed: float | None = None

    @property
    def first_sound(self) -> float | None:
        """Seconds from the end of speech to the first sound."""
        return self.ready[0] - self.speech_ended if self.ready else None

    @property
    def gaps(self) -> list[float]:
        """Seconds of each stretch in which a player that starts with the first sound has run dry."""
        return [length for _, length in playback(self.ready, self.durations)[1]]

    @property
    def rtf(self) -> float | None:
        """Seconds of work per second of sound, from the decision to the last piece."""
        if self.decided is None or not self.ready:
            return None
        return (self.ready[-1] - self.decided) / sum(self.durations)

    @property
    def stopped(self) -> float | None:
        """Seconds from an interruption's first voiced frame to the last sound that was sent after it; 0 for none."""
        if self.interrupted is None:
            return None
        return max([0.0, *(moment - self.interrupted for moment in self.ready)])

    @property
    def told(self) -> float | None:
        """Seconds from an interruption's first voiced frame to the word that it is heard."""
        if self.interrupted is None or self.noticed is None:
            return None
        return max(0.0, self.noticed - self.interrupted)


@dataclass
class Call:
    """One conversation.

    Attributes:
        began: when the caller asked for a connection.
        outcome: "done", "vanished", "refused", "failed".
        problem: what went wrong.
        retry_after: seconds after which a refusing server wants to be asked again.
        turns: those that were asked.
        ended: when it was over.
    """

    began: float
    outcome: str = "failed"
    problem: str = ""
    retry_after: float | None = None
    turns: list[HeardTurn] = field(default_factory=list)
    ended: float = 0.0
