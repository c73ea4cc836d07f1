"""What a conversation remembers from one turn to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from omni2_engine.turn.prompt import Exchange


@dataclass
class History:
    """Belongs to the turn that runs, and to the session between turns.

    Attributes:
        exchanges: the turns; the last one's reply grows while it runs.
        fed: items the KV cache holds.
        rounds: of the last turn, (units before the round, text ids the speech LM had read with it).
    """

    exchanges: list[Exchange] = field(default_factory=list)
    fed: list[int] = field(default_factory=list)
    rounds: list[tuple[int, int]] = field(default_factory=list)
