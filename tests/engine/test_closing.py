"""A session that is closed while a turn of it begins, at the moments at which neither had seen the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omni2_engine import Engine, Prepared, SettingError
from omni2_engine.sessions import beginning, ending

from ..waiting import eventually

QUESTION = (0.1 * np.sin(np.arange(8_000) * 0.1)).astype(np.float32)
LIMITS = {"max_new_tokens": 4, "max_last_write": 12}


def held(engine: Engine) -> tuple[int, int]:
    return engine.waiting, engine.states.budget.used


def goes_back_to(engine: Engine, before: tuple[int, int]) -> bool:
    return eventually(lambda: held(engine) == before)  # another thread may be about to give it back


def test_closed_before_the_turn_has_an_output(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The close has looked for an output to end, and found none."""
    before, session = held(tiny_engine), tiny_engine.session()
    lay_out = beginning.lay_out

    def closed_meanwhile(*arguments: Any) -> Any:
        session.close()
        return lay_out(*arguments)

    monkeypatch.setattr(beginning, "lay_out", closed_meanwhile)
    with pytest.raises(SettingError, match="closed during the turn"):
        list(session.stream(QUESTION, sample_rate=16_000, **LIMITS))
    assert goes_back_to(tiny_engine, before)


def test_closed_before_the_turn_has_a_place(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    before, session = held(tiny_engine), tiny_engine.session()
    sound_of = beginning.sound_of

    def closed_meanwhile(*arguments: Any) -> Any:
        session.close()
        return sound_of(*arguments)

    monkeypatch.setattr(beginning, "sound_of", closed_meanwhile)
    with pytest.raises(SettingError, match="closed during the turn"):
        list(session.stream(QUESTION, sample_rate=16_000, **LIMITS))
    assert goes_back_to(tiny_engine, before)


def test_committed_while_the_close_takes_it_back(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit comes when the close has seen a prepared turn, and has not ended it yet."""
    before, session = held(tiny_engine), tiny_engine.session()
    turn: Prepared = session.prepare(QUESTION, sample_rate=16_000, **LIMITS)
    take_back = ending.take_back

    def committed_meanwhile(*arguments: Any) -> None:
        monkeypatch.undo()
        with pytest.raises(SettingError, match="closed"):
            turn.commit()
        take_back(*arguments)

    monkeypatch.setattr(ending, "take_back", committed_meanwhile)
    session.close()
    assert ending.take_back is take_back and goes_back_to(tiny_engine, before)
