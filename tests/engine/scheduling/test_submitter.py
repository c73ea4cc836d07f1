"""Which steps of several turns the scheduler may put into one call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from omni2_engine.scheduling.turn_policy import Decode, Prefill, Read, Render, Speak, Step, Voice
from omni2_engine.scheduling.workers import submitter

READ = Read(3, False)
STEPS = (Prefill(), Decode(), READ, Speak(), Render(10, False), Voice(False))
TEXT, SPEECH = 1, 2  # keys of shared caches


class Submissions:
    """In place of a scheduler."""

    def __init__(self) -> None:
        self.keys: list[int] = []

    def submit(self, session: int, stage: int, task: Any, key: int) -> None:
        self.keys.append(key)


def keys(
    session: int, steps: tuple[Step, ...], text: int = TEXT, speech: int = SPEECH, spoken: bool = True
) -> list[int]:
    """What a turn's steps are submitted with; `text` and `speech` are its caches' keys, 0 if they are its own."""
    states = SimpleNamespace(key=lambda state: state)
    turn: Any = SimpleNamespace(
        engine=SimpleNamespace(states=states),
        writer=SimpleNamespace(state=text),
        speaker=SimpleNamespace(state=speech),
        history=SimpleNamespace(rounds=[(0, 3)] if spoken else []),
    )
    scheduler: Any = Submissions()
    submit = submitter(scheduler, session, turn)
    for step in steps:
        submit(step)
    return list(scheduler.keys)


def test_turns_with_shared_caches_decode_together_and_read_in_one_call() -> None:
    ours, theirs = keys(1, STEPS), keys(2, STEPS)
    shared = [a == b for a, b in zip(ours, theirs, strict=True)]
    assert shared == [isinstance(step, Decode | Read | Speak) for step in STEPS]
    assert len(set(ours)) == 4  # Prefill, Render and Voice have the session's own


def test_the_first_reading_of_a_turn_waits_for_nobody_s() -> None:
    opening = keys(1, (READ,), spoken=False)
    assert opening != keys(2, (READ,), spoken=False) and opening != keys(2, (READ,))


@pytest.mark.parametrize("session", [1, 2, 3, 100])
def test_who_has_caches_of_its_own_shares_nothing(session: int) -> None:
    alone = set(keys(session, STEPS, text=0, speech=0))
    assert len(alone) == 1
    for other in (1, 2, 3, 100):
        if other != session:
            assert not alone & set(keys(other, STEPS)) and not alone & set(keys(other, STEPS, text=0, speech=0))
