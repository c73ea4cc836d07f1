"""What is measured: each condition a few conversations of recorded questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omni2_bench.load.visits import Behaviour, Visit, new_visit

THINK = 1.0  # mean seconds between an answer and the next question
SPREAD = 4.0  # seconds in which the conversations begin, at random
USUAL_SILENCE = 0.5


@dataclass(frozen=True)
class LiveCondition:
    """One row of the results.

    Args:
        silence: seconds that end a question (`server_vad`).
        speculate: the server begins answers when a speaker may be done.
        conversations: at once.
        interrupts: share of the answers that the next question interrupts.
    """

    silence: float
    speculate: bool = True
    conversations: int = 1
    interrupts: float = 0.0

    def visits(self, turns: int, questions: int, seed: int) -> list[Visit]:
        """Its conversations.

        Args:
            turns: questions of each.
            questions: number of recordings to choose from.
            seed: of all draws.
        """
        behaviour = Behaviour(1.0, SPREAD, turns, THINK, self.interrupts, vanishes=0.0, seed=seed)
        begins = np.random.default_rng((seed, 2)).uniform(0.0, SPREAD, self.conversations)
        return [
            new_visit(float(moment), behaviour, questions, np.random.default_rng((seed, 3, number)))
            for number, moment in enumerate(sorted(begins))
        ]


def conditions(silences: list[float], conversations: list[int]) -> list[LiveCondition]:
    """Every silence with and without speculation; interruption; several conversations at once."""
    alone = [LiveCondition(silence, speculate) for silence in silences for speculate in (False, True)]
    several = [LiveCondition(USUAL_SILENCE, conversations=number) for number in conversations if number > 1]
    return [*alone, LiveCondition(USUAL_SILENCE, interrupts=1.0), *several]
