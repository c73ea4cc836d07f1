"""Every answer accounted for: by those who asked, and by the server's own counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omni2_bench.common.server_process import Scrape
from omni2_bench.load.records import Call

ANSWERED = ("end", "limit")  # reasons of omni2_turns_total for an answer to its end
LOST = ("failed", "unanswered")


@dataclass(frozen=True)
class Accounts:
    """Both sides' counts of one load.

    Args:
        calls: conversations by outcome, as their callers saw them.
        turns: questions by status, as their callers saw them.
        answers: answers by reason, as the server counted them.
        refused: conversations that were not let in, as the server counted them.
    """

    calls: Counter[str]
    turns: Counter[str]
    answers: Counter[str]
    refused: int

    @classmethod
    def of(cls, calls: Sequence[Call], before: Scrape, after: Scrape) -> Accounts:
        """Count.

        Args:
            calls: all of the load.
            before, after: the server's counters without any session, on both sides of the load.
        """
        counts = [Counter(said.by("reason", "omni2_turns_total")) for said in (before, after)]
        counts[1].subtract(counts[0])
        refused = [said.total("omni2_refused_total") for said in (before, after)]
        return cls(
            Counter(call.outcome for call in calls),
            Counter(turn.status for call in calls for turn in call.turns),
            Counter({reason: int(number) for reason, number in counts[1].items() if number}),
            int(refused[1] - refused[0]),
        )

    def problems(self) -> list[str]:
        """What does not add up; empty if every answer is accounted for.

        A caller that vanishes leaves in the middle of an answer. The server may have ended that by then, or counts it
        as "gone".
        """
        found: list[str] = []
        for status in LOST:
            if self.turns[status]:
                found.append(f"{self.turns[status]} questions {status}")
        if self.calls["failed"]:
            found.append(f"{self.calls['failed']} conversations failed")
        if self.answers["error"]:
            found.append(f"{self.answers['error']} answers ended with an error in the server")
        if self.turns.total() != self.answers.total():
            found.append(f"{self.turns.total()} questions were asked, and the server counts {self.answers.total()}")
        answered = sum(self.answers[reason] for reason in ANSWERED)
        for name, heard, counted in (
            ("completed", self.turns["completed"], answered),
            ("interrupted", self.turns["interrupted"], self.answers["cancelled"]),
        ):
            if heard > counted:
                found.append(f"{heard} answers {name}, and the server counts {counted}")
        if self.calls["refused"] != self.refused:
            found.append(f"{self.calls['refused']} conversations refused, and the server counts {self.refused}")
        return found

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "callers": {"conversations": dict(self.calls), "questions": dict(self.turns)},
            "server": {"answers": dict(self.answers), "refused": self.refused},
        }
