"""Who calls when, and what each caller does: drawn beforehand from a seed, so that every server meets the same load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, takewhile

import numpy as np

from omni2_engine.errors import SettingError

INTERRUPTS_AFTER = (0.5, 2.0)  # seconds of an answer heard before its interruption, uniform


@dataclass(frozen=True)
class Behaviour:
    """How callers behave.

    Args:
        rate: conversations that begin per second on average (a Poisson process).
        seconds: for how long conversations begin.
        turns: questions of one conversation.
        think: mean of the exponentially distributed seconds between an answer's end and the next question.
        interrupts: share of the answers that are interrupted by the next question.
        vanishes: share of the conversations whose connection breaks during an answer.
        seed: of all draws.

    Raises:
        SettingError: a value makes no sense.
    """

    rate: float
    seconds: float
    turns: int = 4
    think: float = 2.0
    interrupts: float = 0.1
    vanishes: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rate", "seconds", "turns"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}", "use a number above 0")
        for name in ("interrupts", "vanishes"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "use a share from 0 to 1")
        if self.think < 0:
            raise SettingError(f"think is {self.think}", "use 0 or more seconds")


@dataclass(frozen=True)
class PlannedTurn:
    """One question.

    Args:
        question: index of the recording.
        think: seconds between the end of the answer before and this question.
        interrupted_after: seconds of its answer that are heard before the next question interrupts it; None if it is
            heard to its end.
    """

    question: int
    think: float
    interrupted_after: float | None = None


@dataclass(frozen=True)
class Visit:
    """One conversation.

    Args:
        begins: seconds after the first moment of the load.
        turns: its questions.
        vanishes_in: index of the turn during whose answer the connection breaks; None if it does not.
    """

    begins: float
    turns: tuple[PlannedTurn, ...]
    vanishes_in: int | None = None


def visits(behaviour: Behaviour, questions: int) -> list[Visit]:
    """All conversations of a load, in the order of their beginnings.

    Args:
        behaviour: of the callers.
        questions: number of recordings to choose from.
    """
    return list(takewhile(lambda visit: visit.begins < behaviour.seconds, arriving(behaviour, questions)))


def arriving(behaviour: Behaviour, questions: int) -> Iterator[Visit]:
    """Conversations without end, in the order of their beginnings; arguments as of `visits`."""
    arrivals, begins = np.random.default_rng((behaviour.seed, 0)), 0.0
    for number in count():
        begins += float(arrivals.exponential(1 / behaviour.rate))
        yield new_visit(begins, behaviour, questions, np.random.default_rng((behaviour.seed, 1, number)))


def new_visit(begins: float, behaviour: Behaviour, questions: int, draws: np.random.Generator) -> Visit:
    """One conversation; arguments as of `Visit` and `visits`."""
    turns: list[PlannedTurn] = []
    for number in range(behaviour.turns):
        think = float(draws.exponential(behaviour.think)) if number else 0.0
        interrupted = float(draws.uniform(*INTERRUPTS_AFTER)) if draws.random() < behaviour.interrupts else None
        last = number == behaviour.turns - 1
        turns.append(PlannedTurn(int(draws.integers(questions)), think, None if last else interrupted))
    vanishes = int(draws.integers(behaviour.turns)) if draws.random() < behaviour.vanishes else None
    return Visit(begins, tuple(turns), vanishes)
