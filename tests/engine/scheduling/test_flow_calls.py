"""What the flow takes when its call begins: with a growing schedule, all that was spoken while the call was queued."""

from __future__ import annotations

from collections import deque
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine.turn.chunking import ChunkSchedule
from omni2_engine.turn.plan import Read, RunFlow, RunVocoder, Step, TurnPlan, Write

FIRST = 10


class Speaker:
    """A turn of one group, whose units come and whose flow calls begin and end when the test says so."""

    def __init__(self, growing: bool, units: int) -> None:
        self.chunks = ChunkSchedule(FIRST, 25.0, growing)
        self.plan = TurnPlan(1, FIRST, self.chunks)
        self.left, self.lead = units, 0.0
        self.queued: deque[RunFlow] = deque()
        self.running: RunFlow | None = None
        self.calls: list[RunFlow] = []  # as they ran
        self.voiced: list[bool] = []
        self._may_speak = False
        self._submit(self.plan.begin(spoken=False))
        self._submit(self.plan.decoded(1, True, self.lead))

    def _submit(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Read | Write):
                self._may_speak = True
            elif isinstance(step, RunFlow):
                self.queued.append(step)
            elif isinstance(step, RunVocoder):
                self.voiced.append(step.final)

    @property
    def can_speak(self) -> bool:
        return self._may_speak and self.left > 0

    def speak(self) -> None:
        self._may_speak = False
        self.left -= 1
        self._submit(self.plan.add_units(1, self.lead))
        self._submit(self.plan.wrote(1, not self.left, self.lead))

    def begin_call(self) -> None:
        self.running = self.plan.flow_begins(self.queued.popleft(), self.lead)
        self.calls.append(self.running)

    def end_call(self) -> None:
        assert self.running is not None
        final, self.running = self.running.final, None
        self._submit(self.plan.flow_done(final, self.lead))

    def moves(self) -> list[str]:
        possible = {
            "speak": self.can_speak,
            "begin_call": self.running is None and bool(self.queued),
            "end_call": self.running is not None,
        }
        return [move for move, now in possible.items() if now]


@settings(max_examples=300, deadline=None)
@given(
    units=st.integers(1, 300),
    growing=st.booleans(),
    pace=st.integers(1, 60),
    leads=st.lists(st.floats(-1, 4), min_size=1),
    seed=st.integers(0, 2**32),
)
def test_every_unit_once_however_many_wait(units: int, growing: bool, pace: int, leads: list[float], seed: int) -> None:
    """At any ratio between the speech LM's pace and the flow's, and however the player's lead changes."""
    random, turn = Random(seed), Speaker(growing, units)
    while moves := turn.moves():
        turn.lead = random.choice(leads)
        (move,) = random.choices(moves, [pace if move == "speak" else 1 for move in moves])
        getattr(turn, move)()
    assert turn.left == 0
    assert sum(call.units for call in turn.calls) == units
    assert [call.final for call in turn.calls] == [False] * (len(turn.calls) - 1) + [True]
    assert turn.voiced == [call.final for call in turn.calls]
    if growing:
        assert all(call.units <= turn.chunks.most for call in turn.calls)


def test_a_growing_call_takes_what_came_while_it_was_queued() -> None:
    turn = Speaker(growing=True, units=200)
    for _ in range(FIRST + 7):
        turn.speak()
    turn.begin_call()
    assert turn.calls == [RunFlow(FIRST + 7, False)]
    while turn.can_speak:  # until the speech LM has to wait for the flow
        turn.speak()
    turn.end_call()
    turn.begin_call()
    assert turn.calls[1] == RunFlow(2 * FIRST, False)  # a player that needs sound soon waits for a short call
    turn.end_call()
    turn.lead = 4.0
    turn.begin_call()
    assert turn.calls[2] == RunFlow(turn.chunks.most, False)  # and no more


def test_a_call_that_takes_the_last_unit_is_the_final_one() -> None:
    """No further call for nothing but the tail."""
    turn = Speaker(growing=True, units=FIRST + 5)
    while turn.can_speak:
        turn.speak()
    assert list(turn.queued) == [RunFlow(FIRST, False)]
    turn.begin_call()
    turn.end_call()
    assert turn.calls == [RunFlow(FIRST + 5, True)]
    assert turn.moves() == [] and turn.voiced == [True]


def test_a_fixed_call_takes_what_it_was_cut_for() -> None:
    turn = Speaker(growing=False, units=35)
    while moves := turn.moves():
        getattr(turn, moves[0])()  # it speaks on while it may
    assert turn.calls == [RunFlow(FIRST, False)] * 3 + [RunFlow(5, True)]
