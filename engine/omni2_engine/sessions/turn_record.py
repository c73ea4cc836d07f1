"""What a conversation tells about its turns."""

from __future__ import annotations

from dataclasses import dataclass

GIVEN = "given"  # how a turn ended that was had elsewhere


@dataclass(frozen=True)
class TurnRecord:
    """One turn that is over, as `Session.history` lists it.

    Args:
        typed: the question, if it was typed; None if it was spoken, as the model makes no transcript.
        answer: the part of the answer's text that was written, or that was heard if `truncated`.
        finish_reason: "end", "limit" or "cancelled", as in `Chunk`, "error" if an error ended it, or "given" of a turn
            that was had elsewhere, see `EarlierTurn`.
        truncated: `Session.truncate` cut the answer to what was heard.
    """

    typed: str | None
    answer: str
    finish_reason: str
    truncated: bool = False
