"""Which steps of several turns the scheduler may put into one call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from omni2_engine.scheduling.turn_policy import Decode, Prefill, Read, Render, Speak, Step, Voice
from omni2_engine.scheduling.workers import submitter

READ = Read(3, False)
DECODING = (Prefill(), Decode(), READ, Speak())
TEXT, SPEECH = 1, 2  # keys of shared caches


class Submissions:
    """In place of a scheduler."""

    def __init__(self) -> None:
        self.keys: list[int] = []

    def submit(self, session: int, stage: int, task: Any, key: int) -> None:
        self.keys.append(key)


def keys(
    session: int,
    steps: tuple[Step, ...],
    text: int = TEXT,
    speech: int = SPEECH,
    spoken: bool = True,
    heard: bool = True,
    mel: tuple[int, bool] = (20, False),
) -> list[int]:
    """What a turn's steps are submitted with; `text` and `speech` are its caches' keys, 0 if they are its own."""
    states = SimpleNamespace(key=lambda state: state)
    turn: Any = SimpleNamespace(
        engine=SimpleNamespace(states=states),
        writer=SimpleNamespace(state=text),
        speaker=SimpleNamespace(state=speech),
        history=SimpleNamespace(rounds=[(0, 3)] if spoken else []),
        opening=not heard,
        newest_mel=mel,
    )
    scheduler: Any = Submissions()
    submit = submitter(scheduler, session, turn)
    for step in steps:
        submit(step)
    return list(scheduler.keys)


def test_turns_with_shared_caches_decode_together_and_read_in_one_call() -> None:
    ours, theirs = keys(1, DECODING), keys(2, DECODING)
    shared = [a == b for a, b in zip(ours, theirs, strict=True)]
    assert shared == [not isinstance(step, Prefill) for step in DECODING]
    assert len(set(ours)) == len(DECODING)


def test_the_first_reading_of_a_turn_waits_for_nobody_s() -> None:
    opening = keys(1, (READ,), spoken=False)
    assert opening != keys(2, (READ,), spoken=False) and opening != keys(2, (READ,))


@pytest.mark.parametrize("session", [1, 2, 3, 100])
def test_who_has_caches_of_its_own_decodes_alone(session: int) -> None:
    alone = set(keys(session, DECODING, text=0, speech=0))
    assert len(alone) == 1
    for other in (1, 2, 3, 100):
        if other != session:
            assert not alone & set(keys(other, DECODING)) and not alone & set(keys(other, DECODING, text=0, speech=0))


@pytest.mark.parametrize("caches", [0, 1])
def test_mel_is_made_together_but_for_first_chunks(caches: int) -> None:
    """Those go with other first chunks at most."""
    render = (Render(10, False),)
    opening, going_on = (keys(1, render, caches, caches, heard=heard) for heard in (False, True))
    assert opening != going_on
    for steps in (render, (Render(3, True),)):
        assert keys(2, steps, caches, caches, heard=False) == opening
        assert keys(3, steps, caches, caches, heard=True) == going_on


def test_sound_is_made_together_where_shapes_agree() -> None:
    def key(session: int, frames: int, first: bool, final: bool = False) -> int:
        return keys(session, (Voice(final),), mel=(frames, first))[0]

    assert key(1, 20, False) == key(2, 20, False) == key(3, 20, False, final=True)
    shapes = [(frames, first) for frames in range(60) for first in (False, True)]
    assert len({key(1, *shape) for shape in shapes}) == len(shapes)
    assert key(1, 0, False) != key(2, 0, False)  # nothing but a tail: that is nobody's shape
