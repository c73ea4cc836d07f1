"""Sizes of flow calls: as few units as possible, or more once the player has a lead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omni2_engine.settings.tuning import TURN
from omni2_engine.turn.chunking import ChunkSchedule

RATE = 25.0
firsts = st.integers(1, 40)
leads = st.floats(-1e6, 1e6)
lasts = st.integers(0, 400)


@given(first=firsts, lead=leads, last=lasts)
def test_a_fixed_schedule_knows_one_size(first: int, lead: float, last: int) -> None:
    schedule = ChunkSchedule(first, RATE)
    assert schedule.next(lead, last) == schedule.most == first


@given(first=firsts, lead=leads, last=lasts)
def test_a_growing_schedule_is_careful(first: int, lead: float, last: int) -> None:
    schedule = ChunkSchedule(first, RATE, growing=True)
    size = schedule.next(lead, last)
    assert size in [first * factor for factor in TURN.growth]
    assert first <= size <= schedule.most
    if size > first and lead >= -TURN.late:
        assert size <= 2 * last
        assert size / RATE <= lead / 2


@given(first=firsts, lead=st.floats(-1e6, -TURN.late, exclude_max=True), last=lasts)
def test_who_has_nothing_to_play_for_long_gets_more_at_once(first: int, lead: float, last: int) -> None:
    """But for the first chunk: its player has not begun."""
    assert ChunkSchedule(first, RATE, growing=True).next(lead, last) == (2 * first if last else first)


@given(first=firsts, lead=st.floats(-TURN.late, 1e6), more=st.floats(0, 100), last=lasts)
def test_more_lead_never_means_less(first: int, lead: float, more: float, last: int) -> None:
    schedule = ChunkSchedule(first, RATE, growing=True)
    assert schedule.next(lead + more, last) >= schedule.next(lead, last)


@given(first=firsts, lead=leads, last=lasts)
def test_a_call_has_room_for_what_it_waits_for(first: int, lead: float, last: int) -> None:
    schedule = ChunkSchedule(first, RATE, growing=True)
    room = schedule.room(lead)
    assert max(2 * first, schedule.next(lead, last)) <= room <= schedule.most
    if 2 * first < room and lead >= -TURN.late:
        assert room / RATE <= 2 * lead
    if lead < -TURN.late or lead >= schedule.most / RATE:
        assert room == schedule.most


def test_it_grows_step_by_step_and_shrinks_at_once() -> None:
    schedule = ChunkSchedule(10, RATE, growing=True)
    sizes = [0]
    for _ in range(5):
        sizes.append(schedule.next(60.0, sizes[-1]))
    assert sizes == [0, 10, 20, 40, 40, 40]
    assert schedule.next(0.4, 40) == 10
    assert schedule.next(1.6, 40) == 20  # 0.8 s of sound for 1.6 s of lead
