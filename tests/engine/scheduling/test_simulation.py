"""The scheduler on its virtual clock: exact schedules, and properties over random work."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine._core import Scheduler, SchedulerError, SessionCancelledError, Simulation, Stage

from ...waiting import SOON


def nothing(payloads: list[Any]) -> None:
    """A stage that does nothing."""


def plain_stages(count: int, max_batch: int = 1) -> list[Stage]:
    return [Stage(str(i), nothing, max_batch) for i in range(count)]


def constant(*seconds: float) -> Callable[[int, list[Any]], float]:
    return lambda stage, payloads: seconds[stage]


def test_chunks_pass_through_a_pipeline_at_the_pace_of_its_slowest_stage() -> None:
    simulation = Simulation(plain_stages(3), constant(1.0, 3.0, 0.5))
    session = simulation.open()
    for _ in range(4):
        before: tuple[int, ...] = ()
        for stage in range(3):
            before = (simulation.submit(session, stage, None, before),)
    simulation.run()
    assert [(start, stop) for stage, start, stop, _ in simulation.trace if stage == 2] == [
        (4.0, 4.5),
        (7.0, 7.5),
        (10.0, 10.5),
        (13.0, 13.5),
    ]
    assert simulation.now() == 13.5
    assert simulation.drained(session)


def test_one_at_a_time_a_pipeline_takes_the_sum() -> None:
    simulation = Simulation(plain_stages(2), constant(1.0, 3.0), width=1)
    session = simulation.open()
    for _ in range(2):
        simulation.submit(session, 1, None, [simulation.submit(session, 0, None)])
    simulation.run()
    assert simulation.now() == 8.0


def test_a_stage_runs_when_its_time_has_passed_and_may_submit_what_follows() -> None:
    times: list[float] = []

    def run(payloads: list[int]) -> None:
        times.append(simulation.now())
        if payloads[0] > 0:
            simulation.submit(session, 0, payloads[0] - 1)

    simulation = Simulation([Stage("countdown", run)], lambda stage, payloads: float(payloads[0] + 1))
    session = simulation.open()
    simulation.at(10.0, lambda: simulation.submit(session, 0, 2))
    simulation.run(until=14.0)
    assert (times, simulation.now()) == ([13.0], 14.0)
    simulation.run()
    assert (times, simulation.now()) == ([13.0, 15.0, 16.0], 16.0)
    assert simulation.trace == [(0, 10.0, 13.0, [1]), (0, 13.0, 15.0, [1]), (0, 15.0, 16.0, [1])]


def test_tasks_that_become_ready_at_one_time_share_a_call() -> None:
    simulation = Simulation(plain_stages(1, max_batch=3), lambda stage, payloads: 1.0 + len(payloads))
    sessions = [simulation.open() for _ in range(5)]
    for session in sessions:
        simulation.at(1.0, lambda session=session: simulation.submit(session, 0, None))
    simulation.run()
    assert simulation.trace == [(0, 1.0, 5.0, sessions[:3]), (0, 5.0, 8.0, sessions[3:])]


def test_a_session_too_far_ahead_starts_at_its_moment_unless_alone() -> None:
    simulation = Simulation(plain_stages(1), constant(1.0))
    ahead, other = simulation.open(run_ahead=2.0), simulation.open()
    simulation.begin(ahead)
    simulation.begin(other)
    simulation.delivered(ahead, 10.0)
    for _ in range(3):
        simulation.submit(ahead, 0, None)
    simulation.at(8.5, lambda: simulation.delivered(ahead, 1.0))
    simulation.at(9.5, lambda: simulation.delivered(ahead, 10.0))
    simulation.at(12.0, lambda: simulation.finish(other))
    simulation.run()
    assert [start for _, start, _, _ in simulation.trace] == [8.0, 9.0, 12.0]


def test_a_cancelled_session_starts_nothing_more_and_a_failed_one_reports() -> None:
    failures: list[BaseException] = []

    def run(payloads: list[Any]) -> list[BaseException | None]:
        return [payload if isinstance(payload, BaseException) else None for payload in payloads]

    simulation = Simulation([Stage("only", run)], constant(1.0))
    cancelled, failed = simulation.open(failures.append), simulation.open(failures.append)
    error = LookupError("broken")
    for session, payload in [(cancelled, None), (failed, error)]:
        for _ in range(3):
            simulation.submit(session, 0, payload)
    simulation.at(0.5, lambda: simulation.cancel(cancelled))
    simulation.run()
    assert simulation.trace == [(0, 0.0, 1.0, [cancelled]), (0, 1.0, 2.0, [failed])]
    assert failures == [error]
    for session in (cancelled, failed):
        with pytest.raises(SessionCancelledError):
            simulation.submit(session, 0, None)
        simulation.revive(session)
        simulation.submit(session, 0, None)
    simulation.run()
    assert simulation.counts() == (2, 0, 0)


@pytest.mark.parametrize("place", ["action", "cost", "failed"])
def test_what_the_model_raises_comes_out_and_ends_the_simulation(place: str) -> None:
    def fail(*arguments: Any) -> Any:
        raise LookupError(place)

    simulation = Simulation(
        [Stage("only", fail if place == "failed" else nothing)], fail if place == "cost" else constant(1.0)
    )
    simulation.submit(simulation.open(fail), 0, None)
    if place == "action":
        simulation.at(0.5, fail)
    with pytest.raises(LookupError, match=place):
        simulation.run()
    with pytest.raises(SchedulerError):
        simulation.run()


def test_what_makes_no_sense_is_refused() -> None:
    simulation = Simulation(plain_stages(1), constant(-1.0))
    simulation.run(until=2.0)
    for time in (1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="past"):
            simulation.at(time, lambda: None)
    with pytest.raises(ValueError):
        simulation.run(until=float("nan"))
    simulation.at(3.0, simulation.run)
    with pytest.raises(SchedulerError, match="runs"):
        simulation.run()
    simulation = Simulation(plain_stages(1), constant(-1.0))
    simulation.submit(simulation.open(), 0, None)
    with pytest.raises(ValueError, match="cost"):
        simulation.run()


def test_a_simulation_shut_down_lets_go_of_its_callables_and_keeps_its_trace() -> None:
    class Owner:
        def __init__(self) -> None:
            self.simulation = Simulation([Stage("own", self.run)], lambda stage, payloads: self.cost)
            self.cost = 1.0
            self.simulation.submit(self.simulation.open(), 0, None)
            self.simulation.at(5.0, self.end)

        def run(self, payloads: list[object]) -> None: ...
        def end(self) -> None: ...

    owner = Owner()
    alive, simulation = weakref.ref(owner), owner.simulation
    simulation.run(until=2.0)
    simulation.shutdown()
    del owner
    assert alive() is None
    assert simulation.trace == [(0, 0.0, 1.0, [1])]


@st.composite
def workloads(draw: st.DrawFn) -> dict[str, Any]:
    """Tasks as (session, stage, places of the session's earlier tasks it comes after, key, time, cost)."""
    stages, sessions = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    tasks: list[tuple[int, int, list[int], int, float, float]] = []
    time = 0.0
    for _ in range(draw(st.integers(1, 40))):
        time += draw(st.sampled_from([0.0, 0.0, 0.1, 1.0]))
        session = draw(st.integers(0, sessions - 1))
        earlier = [i for i, task in enumerate(tasks) if task[0] == session]
        after = draw(st.lists(st.sampled_from(earlier), max_size=2)) if earlier else []
        stage, key = draw(st.integers(0, stages - 1)), draw(st.integers(0, 1))
        tasks.append((session, stage, after, key, time, draw(st.sampled_from([0.0, 0.3, 1.1]))))
    return {
        "tasks": tasks,
        "sessions": sessions,
        "run_ahead": draw(st.sampled_from([0.5, float("inf")])),
        "max_batch": draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages)),
        "width": draw(st.integers(1, stages)),
        "order": draw(st.sampled_from(["deadline", "arrival"])),
    }


def simulate(work: dict[str, Any]) -> tuple[list[tuple[int, float, float, list[int]]], list[tuple[float, float]]]:
    """The trace, and (start, stop) of every task. The last stage's tasks deliver half a second of sound each."""
    tasks = work["tasks"]
    spans: list[tuple[float, float]] = [(-1.0, -1.0)] * len(tasks)

    def run(payloads: list[int]) -> None:
        for i in payloads:
            spans[i] = (started[i], simulation.now())
            if tasks[i][1] == len(work["max_batch"]) - 1:
                simulation.delivered(sessions[tasks[i][0]], 0.5)

    def cost(stage: int, payloads: list[int]) -> float:
        for i in payloads:
            assert tasks[i][1] == stage
            started[i] = simulation.now()
        assert len({tasks[i][0] for i in payloads}) == len(payloads)
        assert len({tasks[i][3] for i in payloads}) == 1
        return max(tasks[i][5] for i in payloads)

    started: dict[int, float] = {}
    stages = [Stage(str(i), run, max_batch) for i, max_batch in enumerate(work["max_batch"])]
    simulation = Simulation(stages, cost, work["width"], work["order"])
    sessions = [simulation.open(run_ahead=work["run_ahead"]) for _ in range(work["sessions"])]
    for session in sessions[::2]:
        simulation.begin(session)
    ids: list[int] = []

    def submit(i: int) -> None:
        session, stage, after, key, _, _ = tasks[i]
        ids.append(simulation.submit(sessions[session], stage, i, [ids[j] for j in after], key))

    for i, task in enumerate(tasks):
        simulation.at(task[4], lambda i=i: submit(i))
    simulation.run()
    assert simulation.counts() == (len(sessions), 0, 0)
    return simulation.trace, spans


@settings(max_examples=300, deadline=None)
@given(work=workloads())
def test_any_workload_runs_in_order_within_bounds_and_the_same_every_time(work: dict[str, Any]) -> None:
    trace, spans = simulate(work)
    tasks = work["tasks"]
    for i, (session, stage, after, _, time, _) in enumerate(tasks):
        start, stop = spans[i]
        assert time <= start <= stop
        earlier = [j for j in range(i) if tasks[j][:2] == (session, stage)]
        assert all(spans[j][1] <= start for j in [*after, *earlier])
    for stage, start, _, sessions in trace:
        assert len(sessions) <= work["max_batch"][stage]
        assert sum(s <= start < e for _, s, e, _ in trace) <= work["width"]
    for stage in range(len(work["max_batch"])):
        calls = [(start, stop) for at, start, stop, _ in trace if at == stage]
        assert all(before[1] <= after[0] for before, after in pairwise(calls))
    assert simulate(work) == (trace, spans)


@settings(max_examples=40, deadline=None)
@given(work=workloads())
def test_real_threads_take_the_same_decisions(work: dict[str, Any]) -> None:
    """One call at a time, everything queued behind a first call: the scheduler's order is the simulation's."""
    assert order_of(Scheduler, work) == order_of(Simulation, work)


def order_of(kind: type[Scheduler] | type[Simulation], work: dict[str, Any]) -> list[list[int]]:
    """The payloads of each call, in the order of the calls."""
    calls: list[list[int]] = []
    gate = threading.Event()

    def wait(payloads: list[None]) -> None:
        gate.wait(SOON)

    stages = [Stage(str(i), calls.append, max_batch) for i, max_batch in enumerate(work["max_batch"])]
    stages.append(Stage("gate", wait))
    cost = {"cost": lambda stage, payloads: 1.0} if kind is Simulation else {}
    with kind(stages, width=1, order=work["order"], **cost) as machine:
        machine.submit(machine.open(), len(stages) - 1, None)
        if isinstance(machine, Simulation):
            machine.run(until=0.0)
        sessions = [machine.open() for _ in range(work["sessions"])]
        for session in sessions[::2]:
            machine.begin(session)
        ids: list[int] = []
        for i, (place, stage, after, key, _, _) in enumerate(work["tasks"]):
            ids.append(machine.submit(sessions[place], stage, i, [ids[j] for j in after], key))
        gate.set()
        if isinstance(machine, Simulation):
            machine.run()
        assert all(machine.drained(session, SOON) for session in sessions)
    return calls


@pytest.mark.parametrize(("width", "beside"), [(2, False), (4, True)])
def test_nothing_slows_a_first_chunk_where_calls_share_processors(width: int, beside: bool) -> None:
    stages = [Stage(str(number), lambda _: None) for number in range(4)]
    simulation = Simulation(stages, lambda *_: 1.0, width=width)
    new, old, older = (simulation.open() for _ in range(3))
    for session in (old, older):
        simulation.begin(session)
        simulation.delivered(session, 0.5)
    simulation.begin(new)
    simulation.submit(old, 1, None)
    simulation.submit(older, 2, None)
    simulation.submit(new, 0, None)
    simulation.submit(new, 3, None)
    simulation.run()
    starts = {tuple(sessions): start for _, start, _, sessions in simulation.trace if sessions != [new]}
    assert starts == ({(old,): 0.0, (older,): 0.0} if beside else {(old,): 2.0, (older,): 2.0})
    assert [start for _, start, _, sessions in simulation.trace if sessions == [new]] == [0.0, 0.0 if beside else 1.0]
