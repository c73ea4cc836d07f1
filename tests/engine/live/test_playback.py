"""How much of an answer was heard: by the player's word, by the clock without it."""

from __future__ import annotations

import pytest

from omni2_engine.live.playback import Playback


class HandClock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_the_clock_counts_from_when_a_player_may_start(clock: HandClock) -> None:
    player = Playback(clock, 0.0)
    player.add(1.0, start_in=0.25)
    player.add(1.0, start_in=0.0)
    clock.now = 0.2
    assert player.playing
    clock.now = 1.5
    assert player.stop(None) == 1.25
    assert not player.playing


def test_a_player_that_ran_dry_goes_on_with_the_next_chunk(clock: HandClock) -> None:
    player = Playback(clock, 0.0)
    player.add(1.0, start_in=0.0)
    clock.now = 3.0
    assert not player.playing
    player.add(1.0, start_in=0.0)
    clock.now = 3.5
    assert player.playing and player.end == 4.0
    assert player.stop(None) == 1.5


def test_the_players_word_counts_and_the_clock_goes_on_from_it(clock: HandClock) -> None:
    player = Playback(clock, 0.0)
    player.add(2.0, start_in=0.0)
    clock.now = 1.0
    player.said(0.4)
    clock.now = 1.1
    assert player.stop(None) == pytest.approx(0.5)


def test_nothing_is_heard_that_was_not_given(clock: HandClock) -> None:
    player = Playback(clock, 0.0)
    assert player.stop(7.0) == 0.0
    player = Playback(clock, 0.0)
    player.add(1.0, start_in=0.0)
    clock.now = 100.0
    assert player.stop(None) == 1.0


def test_an_answer_waits_for_the_one_before(clock: HandClock) -> None:
    player = Playback(clock, begins=5.0)
    player.add(1.0, start_in=0.0)
    clock.now = 5.5
    assert player.stop(None) == 0.5
