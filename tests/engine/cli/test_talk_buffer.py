"""How long the player of `omni2-engine talk` waits, on a clock that the tests set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni2_engine.cli.talk_buffer import LEAST, MOST, REMEMBERED, SPARE, PlayoutDelay, no_delay
from omni2_engine.turn.playout import playback


def answer(delay: PlayoutDelay, late: float, start_in: float = 0.0) -> None:
    """Two pieces of half a second, the second so much later than it was needed."""
    delay.begin(10.0 + start_in)
    delay.arrived(10.0, 0.5)
    delay.arrived(10.5 + start_in + late, 0.5)


def test_it_follows_what_came_late_and_forgets_it() -> None:
    delay = PlayoutDelay()
    assert delay.seconds == LEAST
    answer(delay, -0.3)
    assert delay.seconds == LEAST
    answer(delay, 0.2)
    assert delay.seconds == pytest.approx(0.2 + SPARE)
    for _ in range(REMEMBERED - 1):
        answer(delay, 0.0)
    assert delay.seconds == pytest.approx(0.2 + SPARE)
    answer(delay, 0.0)
    assert delay.seconds == LEAST


def test_it_has_bounds() -> None:
    delay = PlayoutDelay()
    answer(delay, 7.0)
    assert delay.seconds == MOST
    none = no_delay()
    answer(none, 7.0)
    assert none.seconds == 0.0


def test_what_was_foreseen_is_not_waited_for_twice() -> None:
    delay = PlayoutDelay()
    answer(delay, 0.1, start_in=2.0)
    assert delay.seconds == pytest.approx(0.1 + SPARE)


@given(st.lists(st.tuples(st.floats(0.0, 0.3), st.floats(0.05, 0.5)), min_size=1, max_size=8), st.floats(0.0, 0.5))
def test_the_same_answer_again_has_no_gap(pieces: list[tuple[float, float]], start_in: float) -> None:
    """Pieces: seconds since the one before, and seconds of sound."""
    delay, now, arrivals = PlayoutDelay(most=10.0), 0.0, list[float]()
    delay.begin(start_in)
    for number, (pause, seconds) in enumerate(pieces):
        now += pause if number else 0.0
        arrivals.append(now)
        delay.arrived(now, seconds)
    durations = [seconds for _, seconds in pieces]
    assert playback(arrivals, durations, start_in + delay.seconds)[1] == []
