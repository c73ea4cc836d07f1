"""A person, a player and a client do anything in any order: the conversation ends, its events follow their rules, and
its engine has everything back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine import Engine
from omni2_engine.errors import AudioError, SettingError
from omni2_engine.live.conversation import LiveConversation
from omni2_engine.live.events import (
    AnswerBegun,
    Committed,
    Failed,
    Finished,
    Interrupted,
    SoundMade,
    TextWritten,
    TurnAdded,
    TurnBegun,
    TurnTakenBack,
)
from omni2_engine.live.settings import Detection

from ...waiting import eventually
from .scenes import Floats, recording, silence
from .test_playback import HandClock

OPTIONS: dict[str, Any] = {"seed": 3, "max_new_tokens": 8, "max_last_write": 20, "typed_turns": True}
SPEECH = recording(Path(__file__).parents[3], "examples/sum.wav")
SOUNDS: dict[str, Floats] = {
    "speech": SPEECH,
    "half a sentence": SPEECH[:16_000],
    "a cough": SPEECH[6_000:7_000],
    "a short pause": silence(0.2),
    "a pause": silence(0.6),
}
CALLS: dict[str, Callable[[LiveConversation], None]] = {
    "commit": lambda live: live.commit(),
    "clear": lambda live: live.clear(),
    "say": lambda live: live.say("more"),
    "respond": lambda live: live.respond(),
    "answered": lambda live: live.answered("well"),
    "interrupt": lambda live: live.interrupt(),
    "interrupt early": lambda live: live.interrupt(heard=0.05),
    "truncate": lambda live: live.truncate(0.1),
    "played": lambda live: live.played(0.2),
    "push to talk": lambda live: live.update(detection=None),
    "detect": lambda live: live.update(detection=Detection()),
    "do not interrupt": lambda live: live.update(detection=Detection(interrupt_response=False)),
    "do not answer": lambda live: live.update(detection=Detection(create_response=False)),
}
DEEDS = st.lists(st.sampled_from(["speech", "a pause", *SOUNDS, *CALLS, "take an event", "time goes by"]), max_size=20)


@pytest.mark.parametrize("schedule", ["threaded", "inline"])
@settings(max_examples=15)
@given(deeds=DEEDS)
def test_any_order(engines: dict[str, Engine], schedule: str, deeds: list[str]) -> None:
    engine, clock = engines[schedule], HandClock()
    with engine.live(clock=clock, **OPTIONS) as live:
        events: list[Any] = []
        for deed in deeds:
            if deed in SOUNDS:
                live.feed(SOUNDS[deed])
            elif deed in CALLS:
                CALLS[deed](live)
            elif deed == "time goes by":
                clock.now += 0.3
            elif live._events._events:  # else it might wait for ever
                events.append(next(live))
        live.end()
        events += list(live)
        check_events(events)
        assert len(live.history) == sum(isinstance(event, AnswerBegun | TurnAdded) for event in events)
    prepared = engine.prepared_turns
    assert prepared.prepared == prepared.committed + prepared.taken_back
    assert not engine.waiting and eventually(lambda: not engine.states.budget.used)


@pytest.fixture(scope="module")
def engines(tiny_engine_dir: Path) -> dict[str, Engine]:
    return {
        name: Engine.load(tiny_engine_dir, threads=1, warm_up=False, schedule=name)  # type: ignore[arg-type]
        for name in ("threaded", "inline")
    }


def check_events(events: list[Any]) -> None:
    """The rules that `omni2_engine.live.events` states."""
    begun, running, interrupted, speculative = 0, None, set(), False
    position = 0
    for event in events:
        match event:
            case Committed():
                assert position <= event.begin < event.end
                position = event.end
            case TurnBegun():
                assert event.turn == begun and not speculative
                speculative = True
            case TurnTakenBack():
                assert event.turn == begun and speculative
                speculative = False
            case AnswerBegun():
                assert event.turn == begun and speculative and running is None
                begun, running, speculative = begun + 1, event.turn, False
            case TextWritten() | SoundMade():
                assert event.turn == running and event.turn not in interrupted
            case Interrupted():
                assert event.turn == begun - 1 and event.turn not in interrupted and event.heard >= 0
                interrupted.add(event.turn)
            case Finished():
                assert event.turn == running
                assert (event.reason == "cancelled") <= (event.turn in interrupted)
                running = None
            case TurnAdded():
                assert running is None and not speculative
            case Failed():
                assert event.turn is None and isinstance(event.error, (AudioError, SettingError))
    assert running is None and not speculative
