"""Which steps of several turns the scheduler may put into one call."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from omni2_engine.schedule.threaded import ThreadedQueue
from omni2_engine.turn.plan import Decode, Encode, Prefill, Read, RunFlow, RunVocoder, Step, Write
from omni2_engine.turn.run import TurnRun

DECODING = (Prefill(), Decode(), Read(3, False), Write())
TEXT, SPEECH = 1, 2  # keys of shared caches


class Submissions:
    """In place of a scheduler."""

    def __init__(self) -> None:
        self.keys: list[int] = []

    def submit(self, session: int, stage: int, task: Any, key: int) -> None:
        self.keys.append(key)


def keys(session: int, steps: tuple[Step, ...], text: int = TEXT, speech: int = SPEECH, read: bool = True) -> list[int]:
    """What a turn's steps are submitted with; `text` and `speech` are its caches' keys, 0 if they are its own."""
    run = Mock(spec=TurnRun, text_state=text, speech_state=speech, has_read=read)
    scheduler: Any = Submissions()
    queue = ThreadedQueue(scheduler, session, lambda state: state)  # type: ignore[arg-type, return-value]
    for step in steps:
        queue.submit(step, run)
    return list(scheduler.keys)


def test_turns_with_shared_caches_decode_together_and_read_in_one_call() -> None:
    ours, theirs = keys(1, DECODING), keys(2, DECODING)
    shared = [a == b for a, b in zip(ours, theirs, strict=True)]
    assert shared == [not isinstance(step, Prefill) for step in DECODING]
    assert len(set(ours)) == len(DECODING)


def test_the_first_reading_of_a_turn_waits_for_no_other() -> None:
    first = (Read(3, False),)
    assert keys(1, first, read=False) != keys(2, first, read=False)
    assert keys(1, first, read=False) != keys(2, first)


@pytest.mark.parametrize("session", [1, 2, 3, 100])
def test_caches_of_its_own_are_decoded_alone(session: int) -> None:
    alone = set(keys(session, DECODING, text=0, speech=0))
    assert len(alone) == 1
    for other in (1, 2, 3, 100):
        if other != session:
            assert not alone & set(keys(other, DECODING)) and not alone & set(keys(other, DECODING, text=0, speech=0))


def test_encoder_flow_and_vocoder_serve_one_turn_a_call() -> None:
    steps = (Encode(), RunFlow(10, False), RunVocoder(False))
    assert not set(keys(1, steps)) & set(keys(2, steps))
