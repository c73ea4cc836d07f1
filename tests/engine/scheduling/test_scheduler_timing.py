"""That stages overlap as they should, on the virtual clock: the pace of a pipeline, and a first chunk's way through it.

What the scheduler itself costs is for `python -m omni2_bench.lab.host_cost` to measure.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine._core import Simulation, Stage

TIMES = st.lists(st.integers(1, 40), min_size=1, max_size=5)  # of stages, in units of 2^-10 s: sums of them are exact
UNIT = 2.0**-10


def play(times: list[int], sessions: int, chunks: int) -> dict[int, list[tuple[float, float]]]:
    """(start, stop) of a stage's calls, by stage: chunks of sessions go from stage to stage, all submitted at once."""

    def nothing(payloads: list[Any]) -> None: ...

    simulation = Simulation([Stage(str(i), nothing) for i in range(len(times))], lambda stage, _: times[stage] * UNIT)
    ids = [simulation.open() for _ in range(sessions)]
    for session in ids:
        simulation.begin(session)
        for _ in range(chunks):
            before: tuple[int, ...] = ()
            for stage in range(len(times)):
                before = (simulation.submit(session, stage, None, before),)
    simulation.run()
    assert simulation.counts() == (sessions, 0, 0)
    return {
        place: [(start, stop) for stage, start, stop, _ in simulation.trace if stage == place]
        for place in range(len(times))
    }


@settings(max_examples=100, deadline=None)
@given(times=TIMES, sessions=st.integers(1, 4))
def test_a_chunk_costs_no_more_than_the_slowest_stage(times: list[int], sessions: int) -> None:
    """However many sessions: from the first chunk on there is one every so often, without a gap."""
    calls = play(times, sessions, chunks=8)
    stops = [stop for _, stop in calls[len(times) - 1]]
    assert stops == [(sum(times) + i * max(times)) * UNIT for i in range(8 * sessions)]


@settings(max_examples=100, deadline=None)
@given(times=TIMES, chunks=st.integers(1, 6))
def test_the_first_chunk_takes_its_critical_path(times: list[int], chunks: int) -> None:
    """What its stages take one after another, with other tasks queued behind it."""
    calls = play(times, 1, chunks)
    for stage in range(len(times)):
        assert calls[stage][0] == (sum(times[:stage]) * UNIT, sum(times[: stage + 1]) * UNIT)
