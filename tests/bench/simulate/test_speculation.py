"""Turns that are prepared, on the virtual clock: what they give when they are asked for, and what they cost others."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_bench.simulate import ours
from omni2_bench.simulate.device import L40, DeviceLimits, ReachedShare
from omni2_bench.simulate.load import AnswerLength
from omni2_bench.simulate.model import SimulatedModel
from omni2_bench.simulate.ours import OverlappedServer, TurnOutput
from omni2_bench.simulate.turns import SimulatedTurn
from omni2_engine.schedule.threaded import ThreadedQueue
from omni2_engine.settings.tuning import PLAYOUT
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.held_back import HeldBack
from omni2_engine.turn.options import Options
from omni2_engine.turn.playout import Playout
from omni2_engine.turn.run import TurnRun

LIMITS = DeviceLimits(L40, ReachedShare(0.7, 0.5, 2e-6))
ANSWER = AnswerLength(20, 130)
UNIT = 1 / 25  # seconds of sound
CACHE_KEY = 1  # of all states: turns are decoded together


@pytest.fixture(scope="module")
def model() -> SimulatedModel:
    return SimulatedModel("0.5B")


class SpeculatingServer(OverlappedServer):
    """Answers questions, and prepares turns that may not be asked for."""

    def prepare(self, turn: SimulatedTurn) -> tuple[ThreadedQueue, TurnRun]:
        """Begin a turn ahead, in a session of its own."""
        queue = ThreadedQueue(self.simulation, self.simulation.open(None, Options.run_ahead), lambda state: CACHE_KEY)
        run = self._turn(ANSWER, queue, TurnOutput(self.simulation, turn, lambda: None))
        run._held_back = HeldBack()
        queue.speculate()
        run.begin()
        return queue, run

    def commit(self, turn: SimulatedTurn, run: TurnRun) -> None:
        """The turn is asked for now."""
        turn.asked = self.simulation.now()
        run.commit()


def test_a_turn_that_rests_is_heard_when_it_is_asked_for(model: SimulatedModel) -> None:
    server, turn = SpeculatingServer(model, LIMITS, width=1), SimulatedTurn(0, 0.0)
    _, run = server.prepare(turn)
    server.simulation.run(5.0)
    assert [stage for stage, *_ in server.simulation.trace].count(3) == 2  # flow calls
    assert run.rests and turn.ready == []
    rested = server.simulation.trace[-1][2]
    assert rested < 1.0
    server.commit(turn, run)
    server.simulation.run()
    assert turn.first_chunk == 0.0 and turn.ready[:2] == [5.0, 5.0]
    assert sum(turn.durations) == pytest.approx(ANSWER.units * UNIT)
    assert min(start for _, start, *_ in server.simulation.trace if start > rested) == 5.0


@pytest.mark.parametrize("until", [0.08, 5.0])
def test_a_player_starts_at_once_where_the_second_chunk_is_there(
    model: SimulatedModel, monkeypatch: pytest.MonkeyPatch, until: float
) -> None:
    """And waits for it where it is not, by what was seen before."""
    playout, told = Playout(), []
    before = playout.begin()
    for moment, seconds in ((0.0, 0.12), (0.3, 0.4)):
        playout.start_in(before, moment, seconds)
    put = TurnOutput.put

    def noting(output: TurnOutput, chunk: Chunk) -> None:
        told.append(chunk.start_in)
        put(output, chunk)

    monkeypatch.setattr(ours, "Playout", lambda: playout)
    monkeypatch.setattr(TurnOutput, "put", noting)
    server, turn = SpeculatingServer(model, LIMITS, width=1), SimulatedTurn(0, 0.0)
    _, run = server.prepare(turn)
    server.simulation.run(until)
    assert run.sounded and run.rests == (until == 5.0)
    server.commit(turn, run)
    waits = 0.3 + PLAYOUT.variation * 0.3 - turn.durations[0]
    assert told == ([0.0, 0.0] if until == 5.0 else [pytest.approx(waits)])


@settings(max_examples=40, deadline=None)
@given(ahead=st.floats(0, 0.2), width=st.sampled_from([1, 2, 5]))
def test_alone_it_is_ready_sooner_by_what_it_began_ahead(model: SimulatedModel, ahead: float, width: int) -> None:
    plain, turn = SimulatedTurn(0, 0.0), SimulatedTurn(0, 0.0)
    streaming = OverlappedServer(model, LIMITS, width)
    streaming.ask(plain, ANSWER, lambda: None)
    streaming.simulation.run()
    server = SpeculatingServer(model, LIMITS, width)
    _, run = server.prepare(turn)
    server.simulation.at(ahead, partial(server.commit, turn, run))
    server.simulation.run()
    assert turn.ready[0] == pytest.approx(max(plain.ready[0], ahead))
    assert sum(turn.durations) == pytest.approx(sum(plain.durations))


questions = st.lists(st.floats(0, 3), min_size=1, max_size=6)  # when each is asked
prepared = st.lists(
    st.tuples(st.floats(0, 3), st.floats(0, 0.6), st.booleans()),  # when, for how long, whether it is asked for then
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(questions=questions, prepared=prepared, width=st.sampled_from([1, 2, 5]))
def test_others_wait_for_one_call_at_most(
    model: SimulatedModel, questions: list[float], prepared: list[tuple[float, float, bool]], width: int
) -> None:
    server = SpeculatingServer(model, LIMITS, width)
    simulation = server.simulation
    asked = [SimulatedTurn(number, time) for number, time in enumerate(questions)]
    for turn in asked:
        simulation.at(turn.asked, partial(server.ask, turn, ANSWER, lambda: None))
    ahead = [SimulatedTurn(100 + number, begun + after) for number, (begun, after, _) in enumerate(prepared)]

    def prepare(turn: SimulatedTurn, committed: bool) -> None:
        queue, run = server.prepare(turn)
        then = partial(server.commit, turn, run) if committed else queue.cancel
        simulation.at(turn.asked, then)

    for turn, (begun, _, committed) in zip(ahead, prepared, strict=True):
        simulation.at(begun, partial(prepare, turn, committed))
    simulation.run()
    for turn in asked:
        assert sum(turn.durations) == pytest.approx(ANSWER.units * UNIT)
    for turn, (_, _, committed) in zip(ahead, prepared, strict=True):
        assert sum(turn.durations) == (pytest.approx(ANSWER.units * UNIT) if committed else 0.0)
        assert turn.ready == [] or turn.first_chunk >= 0.0
    calls, _, longest = simulation.speculation()
    assert longest <= 1 and calls <= len(simulation.trace)
    assert simulation.counts()[1:] == (0, 0)
