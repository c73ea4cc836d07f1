"""Who asks when, how long the answers are, and how a session goes on: it asks, listens, thinks and asks again.

Seeded, so that every schedule meets the same load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from omni2_bench.simulate.trace import CallSpan
from omni2_bench.simulate.turns import SimulatedTurn
from omni2_engine._core import Simulation

ARRIVALS = 1.0  # seconds between two sessions' beginnings on average, exponentially distributed (a Poisson process)
TURNS = 3  # questions of one session
TEXT_TOKENS = (20, 80)  # of an answer, uniform
UNITS_PER_TOKEN = 6.5  # 25 units a second over English speech of some four tokens a second
QUESTION = (2.0, 8.0)  # seconds between the end of an answer and the end of the next question, uniform


@dataclass(frozen=True)
class AnswerLength:
    """How long one answer is.

    Args:
        tokens: of its text, the end token included.
        units: of its speech.
    """

    tokens: int
    units: int

    @classmethod
    def of(cls, tokens: int) -> AnswerLength:
        """A text of this number of tokens, spoken at the usual speed."""
        return cls(tokens, round(UNITS_PER_TOKEN * tokens))


@dataclass(frozen=True)
class Talk:
    """One session.

    Args:
        begins: when its first question ends, seconds.
        pauses: seconds from the end of one answer, as it is heard, to the end of the next question.
        answers: one more than pauses.
    """

    begins: float
    pauses: tuple[float, ...]
    answers: tuple[AnswerLength, ...]


def talks(sessions: int, seed: int, turns: int = TURNS) -> list[Talk]:
    """A load of this number of sessions; more sessions with the same seed are the same ones and some more.

    Args:
        sessions: how many.
        seed: names the random numbers.
        turns: questions of each.
    """
    found, begins = [], 0.0
    for session in range(sessions):
        random = np.random.default_rng((seed, session))
        begins += 0.0 if session == 0 else float(random.exponential(ARRIVALS))
        answers = tuple(
            AnswerLength.of(int(count)) for count in random.integers(*TEXT_TOKENS, size=turns, endpoint=True)
        )
        pauses = tuple(float(pause) for pause in random.uniform(*QUESTION, size=turns - 1))
        found.append(Talk(begins, pauses, answers))
    return found


class SimulatedServer(Protocol):
    """A schedule that answers questions.

    Attributes:
        simulation: its clock.
    """

    simulation: Simulation

    def ask(self, turn: SimulatedTurn, answer: AnswerLength, heard: Callable[[], None]) -> None:
        """Answer a question that is asked now; `heard` is called when all of the answer is ready."""

    def spans(self) -> list[CallSpan]:
        """Calls of its stages so far."""


def converse(server: SimulatedServer, talks: Sequence[Talk]) -> list[SimulatedTurn]:
    """Let every session ask all its questions, each after it has heard the answer to the one before.

    Args:
        server: fresh; its clock runs until everything is answered.
        talks: one per session.

    Returns:
        Every turn, in the order in which they were asked.
    """
    turns: list[SimulatedTurn] = []

    def ask(session: int, number: int) -> None:
        talk, turn = talks[session], SimulatedTurn(session, server.simulation.now())
        turns.append(turn)

        def heard() -> None:
            if number + 1 < len(talk.answers):
                again = turn.heard + talk.pauses[number]
                server.simulation.at(again, partial(ask, session, number + 1))

        server.ask(turn, talk.answers[number], heard)

    for session, talk in enumerate(talks):
        server.simulation.at(talk.begins, partial(ask, session, 0))
    server.simulation.run()
    return turns
