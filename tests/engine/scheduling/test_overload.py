"""What the order of tasks is worth when there is more to do than the machine can: one trace, served both ways."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from omni2_engine._core import Simulation, Stage

SECONDS_PER_CALL = (0.02, 0.05, 0.1)  # language model, speech language model, flow and vocoder
SECONDS_OF_SOUND = 0.4  # of every chunk, so the last stage can serve four conversations
CAPACITY = SECONDS_OF_SOUND / max(SECONDS_PER_CALL)
CHUNKS_AHEAD = 2  # of one session, queued beyond the chunk that comes next

BREAK = 0.1  # seconds of silence that a listener notices


@dataclass
class Turn:
    """One answer and its listener."""

    chunks: int
    begun: float
    submitted: int = 0
    dry: float | None = None  # when the player runs dry
    silences: list[float] = field(default_factory=list)  # the wait for the first chunk, then every gap, in seconds

    def hear(self, now: float) -> None:
        silence = now - (self.begun if self.dry is None else self.dry)
        if silence > 1e-9:
            self.silences.append(silence)
        self.dry = max(now, self.dry or now) + SECONDS_OF_SOUND

    @property
    def breaks(self) -> int:
        """Underruns that a listener notices."""
        return sum(gap >= BREAK for gap in self.silences[1:])


def serve(arrivals: list[tuple[float, int]], order: str, run_ahead: float = 10.0) -> list[Turn]:
    """Turns of (time of arrival, chunks), to their ends."""
    turns: dict[int, Turn] = {}

    def feed(session: int, delivered: int) -> None:
        turn = turns[session]
        while turn.submitted < min(turn.chunks, delivered + 1 + CHUNKS_AHEAD):
            before: tuple[int, ...] = ()
            for stage in range(len(SECONDS_PER_CALL)):
                before = (simulation.submit(session, stage, (session, turn.submitted), before),)
            turn.submitted += 1

    def arrive(chunks: int) -> None:
        session = simulation.open(run_ahead=run_ahead)
        turns[session] = Turn(chunks, simulation.now())
        simulation.begin(session)
        feed(session, 0)

    def deliver(payloads: list[tuple[int, int]]) -> None:
        for session, chunk in payloads:
            turns[session].hear(simulation.now())
            simulation.delivered(session, SECONDS_OF_SOUND)
            if chunk + 1 == turns[session].chunks:
                simulation.close(session)
            else:
                feed(session, chunk + 1)

    stages = [Stage("lm", lambda payloads: None, priority=2), Stage("speech", lambda payloads: None, priority=1)]
    simulation = Simulation(
        [*stages, Stage("voice", deliver)],
        lambda stage, payloads: SECONDS_PER_CALL[stage],
        order="deadline" if order == "deadline" else "arrival",
    )
    for time, chunks in arrivals:
        simulation.at(time, lambda chunks=chunks: arrive(chunks))
    simulation.run()
    assert simulation.counts() == (0, 0, 0)  # every turn came to its end
    return list(turns.values())


@pytest.mark.parametrize("seed", range(10))
def test_in_a_burst_of_twice_the_capacity_deadlines_break_fewer_turns_and_no_session_starves(seed: int) -> None:
    """As many long answers as the machine can serve are under way, seconds ahead; as many again begin at once."""
    randomness = random.Random(seed)
    long = [(12.0 * i + randomness.uniform(0.0, 1.0), 200) for i in range(int(CAPACITY))]
    short = [(50.0 + randomness.uniform(0.0, 2.0), 20) for _ in range(int(CAPACITY))]
    by_deadline, by_arrival = serve(long + short, "deadline"), serve(long + short, "arrival")

    live = [sum(t.begun <= 53.0 <= (t.dry or 0.0) for t in turns) for turns in (by_deadline, by_arrival)]
    assert min(live) >= 2 * CAPACITY
    breaks = [sum(turn.breaks for turn in turns) for turns in (by_deadline, by_arrival)]
    assert breaks[0] < breaks[1] / 2
    silence = [sum(sum(turn.silences) for turn in turns) for turns in (by_deadline, by_arrival)]
    assert silence[0] < silence[1] / 2
    assert max(max(turn.silences) for turn in by_deadline) < 1.0


@pytest.mark.parametrize("seed", range(10))
def test_in_lasting_overload_no_session_starves(seed: int) -> None:
    """Twice the capacity arrives all the time: in any order, half of the sound is late.

    Admission would keep it whole. Deadlines decide how long a session waits at a time, for the first
    chunk or in the middle; they do so by many short gaps, where first come, first served has fewer and longer ones.
    """
    randomness = random.Random(seed)
    time, arrivals = 0.0, []
    for _ in range(40):
        time += randomness.expovariate(2 * CAPACITY / (20 * SECONDS_OF_SOUND))
        arrivals.append((time, randomness.randint(10, 30)))
    by_deadline, by_arrival = serve(arrivals, "deadline"), serve(arrivals, "arrival")
    longest = [max(max(turn.silences) for turn in turns) for turns in (by_deadline, by_arrival)]
    assert longest[0] < longest[1] / 1.5
    assert max(turn.silences[0] for turn in by_deadline) < 1.0  # first chunks go ahead of everything
    at_most = max(sum(t.begun <= turn.begun <= (t.dry or 0.0) for t in by_deadline) for turn in by_deadline)
    assert longest[0] < at_most * max(SECONDS_PER_CALL) + 1.0  # a round of all who were there
