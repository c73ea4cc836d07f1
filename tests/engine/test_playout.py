"""A player that starts when a chunk tells it to does not run dry while turns take what they took before."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from omni2_engine.settings.tuning import PLAYOUT
from omni2_engine.turn.playout import Arrivals, Playout, playback


@dataclass(frozen=True)
class Turn:
    """Chunks of a simulated turn: seconds between their arrivals, the first after the question, and of their sound."""

    gaps: list[float]
    sound: list[float]

    @property
    def ready(self) -> list[float]:
        return list(accumulate(self.gaps))

    def dry(self, chunk: int, wait: float) -> float:
        """Seconds for which a player runs dry that starts `wait` after a chunk arrived."""
        ready = self.ready
        return sum(length for _, length in playback(ready, self.sound, ready[chunk] + wait - ready[0])[1])


def play(playout: Playout, turn: Turn, began: float = 0.0, measured: float = float("inf")) -> list[float]:
    """Let an engine make a turn; what its chunks say."""
    arrivals = playout.begin(measured)
    pairs = zip(turn.ready, turn.sound, strict=True)
    return [playout.start_in(arrivals, began + ready, seconds) for ready, seconds in pairs]


times = st.floats(0.001, 5)
turns = st.lists(st.tuples(times, times), min_size=2, max_size=20).map(
    lambda pairs: Turn([gap for gap, _ in pairs], [seconds for _, seconds in pairs])
)


@given(turns, st.lists(st.floats(0.1, 1), min_size=20, max_size=20), st.data())
def test_no_player_runs_dry_while_times_stay_as_seen(seen: Turn, shares: list[float], data: st.DataObject) -> None:
    """Of the next turn every chunk takes as long as in one of the turns before, or less; it may be shorter."""
    playout = Playout()
    for other in data.draw(st.lists(turns, max_size=PLAYOUT.recent - 2)):
        play(playout, other)
    play(playout, seen)
    chunks = data.draw(st.integers(1, len(seen.gaps)))
    coming = Turn([gap * share for gap, share in zip(seen.gaps, shares, strict=False)][:chunks], seen.sound[:chunks])
    for chunk, wait in enumerate(play(playout, coming, began=100.0)):
        assert coming.dry(chunk, wait) == pytest.approx(0, abs=1e-6)


@given(st.floats(0.3, 4), st.floats(0.05, 1), st.integers(3, 6), st.integers(2, 12))
def test_an_engine_slower_than_sound_is_foreseen_further_than_it_was_seen(
    pace: float, seconds: float, before: int, chunks: int
) -> None:
    """At a steady pace a longer answer is provided for, up to the length that is expected of any."""
    assume(chunks * seconds <= PLAYOUT.usual_sound)
    playout = Playout()
    play(playout, Turn([1.0] + [pace * seconds] * (before - 1), [seconds] * before))
    coming = Turn([1.0] + [pace * seconds] * (chunks - 1), [seconds] * chunks)
    assert coming.dry(0, play(playout, coming)[0]) == pytest.approx(0, abs=1e-6)


@given(turns)
def test_the_wait_is_no_longer_than_the_turns_ask_for(seen: Turn) -> None:
    playout = Playout()
    play(playout, seen)
    wait = play(playout, Turn(seen.gaps[:1], seen.sound[:1]))[0]
    late = max(ready - seen.ready[0] - sum(seen.sound[:k]) for k, ready in enumerate(seen.ready) if k)
    slow = (seen.ready[-1] - seen.ready[1]) / sum(seen.sound[2:]) if len(seen.gaps) > 2 else 0.0
    lost, expected = max(0.0, slow - 1), max(PLAYOUT.usual_sound, sum(seen.sound))
    further = lost * (expected - sum(seen.sound))
    usual = sum(seen.gaps[1:]) / (len(seen.gaps) - 1)
    asked = max(late + PLAYOUT.variation * usual + further, lost * (expected - seen.sound[0]))
    assert wait == pytest.approx(max(0.0, asked), abs=1e-6)


def test_an_engine_that_is_far_ahead_lets_players_start_at_once() -> None:
    playout = Playout()
    for _ in range(3):
        waits = play(playout, Turn([0.2] + [0.05] * 5, [0.12] + [0.4] * 5))
    assert waits == [0.0] * 6


def test_a_late_second_chunk_is_waited_for_and_the_wait_runs_down() -> None:
    playout = Playout()
    turn = Turn([0.2, 0.2, 0.2, 0.2], [0.1, 0.4, 0.4, 0.4])
    assert play(playout, turn)[0] == 0.0  # nothing was seen yet
    assert play(playout, turn) == pytest.approx([0.2, 0.0, 0.0, 0.0])  # late by 0.1, and half of 0.2


def test_a_turn_that_begins_with_more_sound_waits_less_and_one_with_less_longer() -> None:
    """Of a prepared turn two chunks are there at once; a turn that was not prepared waits for its second."""
    playout = Playout()
    usual, prepared = Turn([0.2] * 4, [0.1, 0.4, 0.4, 0.4]), Turn([0.2] * 3, [0.5, 0.4, 0.4])
    play(playout, usual)
    assert play(playout, prepared) == [0.0] * 3
    for _ in range(PLAYOUT.recent):
        play(playout, prepared)
    assert play(playout, usual)[0] == pytest.approx(0.2)


def test_a_turn_that_began_with_more_says_nothing_about_one_with_less_where_another_does() -> None:
    """A first chunk that came late is long, and so is the time to the next, which is long too."""
    playout, usual = Playout(), Turn([0.2] * 3, [0.4] * 3)
    play(playout, usual)
    play(playout, Turn([0.9, 0.6], [1.3, 1.5]))
    assert play(playout, usual)[0] == 0.0


def test_an_engine_slower_than_sound_is_foreseen_whatever_turns_began_with() -> None:
    playout = Playout()
    play(playout, Turn([0.2] + [1.3 * 0.4] * 5, [0.8] + [0.4] * 5))
    play(playout, Turn([0.2, 0.2], [0.4] * 2))
    coming = Turn([0.2] + [1.3 * 0.4] * 11, [0.4] * 12)
    assert coming.dry(0, 0.0) == pytest.approx(11 * 0.3 * 0.4)
    assert coming.dry(0, play(playout, coming)[0]) == pytest.approx(0, abs=1e-6)


def test_a_turn_slower_than_any_before_corrects_what_was_foreseen() -> None:
    playout = Playout()
    play(playout, Turn([0.2] * 4, [0.4] * 4))
    waits = play(playout, Turn([0.2, 0.8, 0.8], [0.4] * 3))
    # at last it is late by 0.8 and twice as slow as the sound, of which 3.8 s may follow; 1.6 s have passed
    assert waits == pytest.approx([0.0, 0.0, 0.8 + 0.4 + 3.8 - 1.6])


def test_only_recent_turns_count() -> None:
    playout, slow, fast = Playout(), Turn([1.0] * 3, [0.4] * 3), Turn([0.1] * 3, [0.4] * 3)
    play(playout, slow)
    waits = [play(playout, fast)[0] for _ in range(PLAYOUT.recent)]
    assert all(wait > 0.6 for wait in waits[:-1]) and waits[-1] == 0.0


def test_turns_of_other_sessions_count_while_they_run() -> None:
    playout = Playout()
    running = playout.begin()
    playout.start_in(running, 0.0, 0.4)
    playout.start_in(running, 1.0, 0.4)
    assert play(playout, Turn([0.1], [0.4]))[0] == pytest.approx(0.6 + 0.5)


def test_an_answer_that_waits_for_its_player_says_nothing_about_the_engine() -> None:
    playout = Playout()
    play(playout, Turn([0.1, 0.1, 60.0, 0.1], [0.4] * 4), measured=1.0)
    assert play(playout, Turn([0.1], [0.4])) == [0.0]


def test_arrivals_tell_how_long_ago_the_first_was() -> None:
    arrivals = Arrivals(measured=0.5)
    assert [arrivals.add(now, 0.4) for now in (3.0, 3.5, 9.0)] == [0.0, 0.5, 6.0]
    assert arrivals.sound == 0.4


def test_playback_waits_and_then_plays_without_a_gap() -> None:
    assert playback([1.0, 2.0], [0.5, 0.5]) == ([(1.0, 0.5), (2.0, 0.5)], [(1.5, 0.5)])
    assert playback([1.0, 2.0], [0.5, 0.5], wait=0.5) == ([(1.5, 0.5), (2.0, 0.5)], [])
    assert playback([], []) == ([], [])
