"""Questions in other people's words, for testing only; see `others.yaml`."""

from __future__ import annotations

from dataclasses import dataclass

from omni2_training.domain.grammar import read


@dataclass(frozen=True)
class Other:
    """A question, and what a right answer must hold.

    Args:
        kind: of the question.
        ask: its words; none for silence, noise or music.
        accept: a regular expression, searched in the answer in lower case.
    """

    kind: str
    ask: str
    accept: str


OTHERS = tuple(Other(**fields) for fields in read("others"))


def plain(text: str) -> str:
    """The words alone, for comparing questions."""
    return "".join(c for c in text.lower() if c.isalnum() or c.isspace())


KEPT = frozenset(plain(other.ask) for other in OTHERS if other.ask)
