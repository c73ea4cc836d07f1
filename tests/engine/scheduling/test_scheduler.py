"""The scheduler from Python: what runs when, what fails how. Its threads are tested harder in `tests/cpp`."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni2_engine._core import (
    Scheduler,
    SchedulerClosedError,
    SchedulerError,
    SessionCancelledError,
    Stage,
)

from ...waiting import SOON

Body = Callable[[], None]


def call_each(payloads: list[Body]) -> list[BaseException | None]:
    """A stage whose tasks are functions; what one raises fails that one alone."""
    results: list[BaseException | None] = []
    for body in payloads:
        try:
            body()
            results.append(None)
        except Exception as error:
            results.append(error)
    return results


def plain_stages(count: int, max_batch: int = 1) -> list[Stage]:
    return [Stage(f"stage {i}", call_each, max_batch) for i in range(count)]


@st.composite
def task_graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Tasks as (session, stage, places of the session's earlier tasks they come after, key), in order of submission."""
    stages = draw(st.integers(1, 4))
    sessions = draw(st.integers(1, 4))
    tasks: list[tuple[int, int, list[int], int]] = []
    for _ in range(draw(st.integers(1, 40))):
        session = draw(st.integers(0, sessions - 1))
        earlier = [i for i, task in enumerate(tasks) if task[0] == session]
        after = draw(st.lists(st.sampled_from(earlier), max_size=3)) if earlier else []
        tasks.append((session, draw(st.integers(0, stages - 1)), after, draw(st.integers(0, 1))))
    return {
        "tasks": tasks,
        "sessions": sessions,
        "max_batch": draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages)),
        "width": draw(st.integers(1, stages)),
        "order": draw(st.sampled_from(["deadline", "arrival"])),
        "begun": draw(st.lists(st.booleans(), min_size=sessions, max_size=sessions)),
    }


@settings(max_examples=60, deadline=None)
@given(graph=task_graphs())
def test_any_task_graph_runs_in_order_and_to_its_end(graph: dict[str, Any]) -> None:
    tasks = graph["tasks"]
    events: list[tuple[str, int]] = []
    lock = threading.Lock()
    inside: list[int] = []
    widest = 0

    def run(payloads: list[int]) -> None:
        nonlocal widest
        assert len({tasks[i][0] for i in payloads}) == len(payloads)  # of different sessions
        assert len({tasks[i][3] for i in payloads}) == 1  # with one key
        with lock:
            events.extend(("start", i) for i in payloads)
            inside.append(tasks[payloads[0]][1])
            widest = max(widest, len(inside))
            assert len(set(inside)) == len(inside)  # one call of a stage at a time
        os.sched_yield()  # lets the other stages' threads in
        with lock:
            events.extend(("stop", i) for i in payloads)
            inside.remove(tasks[payloads[0]][1])

    failures: list[BaseException] = []
    stages = [Stage(str(i), run, max_batch) for i, max_batch in enumerate(graph["max_batch"])]
    with Scheduler(stages, width=graph["width"], order=graph["order"]) as scheduler:
        sessions = [scheduler.open(failures.append) for _ in range(graph["sessions"])]
        ids: list[int] = []
        for session, begun in zip(sessions, graph["begun"], strict=True):
            if begun:
                scheduler.begin(session)
        for i, (session, stage, after, key) in enumerate(tasks):
            ids.append(scheduler.submit(sessions[session], stage, i, [ids[j] for j in after], key))
        assert all(scheduler.drained(session, SOON) for session in sessions)
        assert scheduler.counts() == (len(sessions), 0, 0)

    assert failures == []
    place = {event: i for i, event in enumerate(events)}
    assert sorted(i for kind, i in events if kind == "stop") == list(range(len(tasks)))
    assert widest <= graph["width"]
    for i, (session, stage, after, _) in enumerate(tasks):
        assert all(place["stop", j] < place["start", i] for j in after)
        earlier = [j for j in range(i) if tasks[j][:2] == (session, stage)]
        assert all(place["stop", j] < place["start", i] for j in earlier)


def test_tasks_pass_from_stage_to_stage() -> None:
    log: list[int] = []
    with Scheduler(plain_stages(3)) as scheduler:
        session = scheduler.open()
        before: tuple[int, ...] = ()
        for i in range(50):
            before = (scheduler.submit(session, i % 3, lambda i=i: log.append(i), before),)
        assert scheduler.drained(session, SOON)
    assert log == list(range(50))


def test_stages_overlap() -> None:
    meeting = threading.Barrier(3, timeout=SOON)
    failures: list[BaseException] = []
    with Scheduler(plain_stages(3)) as scheduler:
        session = scheduler.open(failures.append)
        for stage in range(3):
            scheduler.submit(session, stage, meeting.wait)
        assert scheduler.drained(session, SOON)
    assert failures == []


def test_calls_are_shared_by_sessions_with_one_key() -> None:
    calls: list[list[str]] = []
    gate = threading.Event()

    def run(payloads: list[str]) -> None:
        calls.append(payloads)
        gate.wait(SOON)

    with Scheduler([Stage("decode", run, max_batch=3)]) as scheduler:
        sessions = [scheduler.open() for _ in range(5)]
        scheduler.submit(sessions[0], 0, "first")
        for name, session, key in [("a", 0, 1), ("b", 1, 1), ("c", 2, 2), ("d", 3, 1), ("e", 4, 1), ("f", 1, 1)]:
            scheduler.submit(sessions[session], 0, name, key=key)
        gate.set()
        assert all(scheduler.drained(session, SOON) for session in sessions)
    assert calls == [["first"], ["a", "b", "d"], ["c"], ["e", "f"]]


def test_first_chunks_go_first_then_the_player_that_runs_dry_soonest() -> None:
    log: list[str] = []
    with Scheduler(plain_stages(1)) as scheduler:
        gate = threading.Event()
        scheduler.submit(scheduler.open(), 0, lambda: gate.wait(SOON))
        sessions = {name: scheduler.open() for name in ["idle", "far", "near", "new", "newer"]}
        for name, session in sessions.items():
            scheduler.submit(session, 0, lambda name=name: log.append(name))
            if name != "idle":
                scheduler.begin(session)
        scheduler.delivered(sessions["far"], 20.0)
        scheduler.delivered(sessions["near"], 10.0)
        gate.set()
        assert all(scheduler.drained(session, SOON) for session in sessions.values())
    assert log == ["new", "newer", "near", "far", "idle"]


def test_the_lead_is_what_the_player_still_has() -> None:
    with Scheduler(plain_stages(1)) as scheduler:
        session = scheduler.open()
        scheduler.begin(session)
        assert scheduler.lead(session) == 0.0
        before = scheduler.now()
        scheduler.delivered(session, 2.0)
        scheduler.delivered(session, 1.0)
        lead, after = scheduler.lead(session), scheduler.now()
        assert 3.0 - (after - before) <= lead <= 3.0


def test_a_session_too_far_ahead_goes_on_at_its_moment() -> None:
    started: list[float] = []
    with Scheduler(plain_stages(1)) as scheduler:
        ahead, other = scheduler.open(run_ahead=0.05), scheduler.open()
        scheduler.begin(ahead)
        scheduler.begin(other)
        scheduler.delivered(ahead, 0.15)
        moment = scheduler.now() + scheduler.lead(ahead) - 0.05
        scheduler.submit(ahead, 0, lambda: started.append(scheduler.now()))
        assert scheduler.drained(ahead, SOON)
        assert started[0] >= moment - 1e-6  # when exactly: test_simulation, on a clock of its own

        scheduler.delivered(ahead, 1000.0)  # alone, nothing holds it back
        scheduler.submit(ahead, 0, lambda: started.append(scheduler.now()))
        assert not scheduler.drained(ahead, 0.02)
        scheduler.close(other)
        assert scheduler.drained(ahead, SOON)


def test_a_held_session_starts_nothing() -> None:
    log: list[int] = []
    with Scheduler(plain_stages(2)) as scheduler:
        session = scheduler.open()
        scheduler.hold(session, True)
        scheduler.submit(session, 0, lambda: log.append(0))
        assert not scheduler.drained(session, 0.02)
        assert (log, scheduler.counts()) == ([], (1, 1, 0))
        scheduler.hold(session, False)
        assert scheduler.drained(session, SOON)
        assert log == [0]


def test_a_running_task_sees_who_wants_its_stage() -> None:
    seen: list[bool] = []
    with Scheduler(plain_stages(2, max_batch=2)) as scheduler:
        sessions = [scheduler.open(), scheduler.open()]

        def look() -> None:
            seen.append(scheduler.should_preempt(0))
            scheduler.submit(sessions[1], 1, lambda: None)
            seen.append(scheduler.should_preempt(0))
            scheduler.submit(sessions[1], 0, lambda: None)
            seen.append(scheduler.should_preempt(0))

        scheduler.submit(sessions[0], 0, look)
        assert all(scheduler.drained(session, SOON) for session in sessions)
        assert seen == [False, False, True]
        with pytest.raises(ValueError, match="no stage 2"):
            scheduler.should_preempt(2)


def fail(message: str) -> None:
    raise LookupError(message)


def test_a_failure_ends_its_session_and_keeps_its_traceback() -> None:
    failures: list[BaseException] = []
    log: list[str] = []
    with Scheduler(plain_stages(1, max_batch=2)) as scheduler:
        broken, whole = scheduler.open(failures.append), scheduler.open()
        for session in (broken, whole):
            scheduler.hold(session, True)
        scheduler.submit(broken, 0, lambda: fail("broken"))
        scheduler.submit(broken, 0, lambda: log.append("came after a failure"))
        for _ in range(3):
            scheduler.submit(whole, 0, lambda: log.append("whole"))
        for session in (broken, whole):
            scheduler.hold(session, False)
        assert scheduler.drained(broken, SOON) and scheduler.drained(whole, SOON)
        with pytest.raises(SessionCancelledError, match="revive"):
            scheduler.submit(broken, 0, lambda: None)
        scheduler.revive(broken)
        scheduler.submit(broken, 0, lambda: log.append("revived"))
        assert scheduler.drained(broken, SOON)
    assert log == ["whole"] * 3 + ["revived"]
    assert [(type(error), error.args) for error in failures] == [(LookupError, ("broken",))]
    assert "fail" in [frame.name for frame in traceback.extract_tb(failures[0].__traceback__)]


@pytest.mark.parametrize(
    ("run", "error"),
    [
        (lambda payloads: fail("all"), LookupError),
        (lambda payloads: [None], ValueError),
        (lambda payloads: [], ValueError),
        (lambda payloads: [None, 3], TypeError),
        (lambda payloads: 3, TypeError),
        (lambda: None, TypeError),
    ],
)
def test_a_stage_that_raises_or_returns_nonsense_fails_all_its_tasks(run: Any, error: type[Exception]) -> None:
    failures: list[BaseException] = []
    with Scheduler([Stage("gate", call_each), Stage("broken", run, max_batch=2)], width=1) as scheduler:
        gate = threading.Event()
        scheduler.submit(scheduler.open(), 0, lambda: gate.wait(SOON))
        sessions = [scheduler.open(failures.append) for _ in range(2)]
        for session in sessions:
            scheduler.submit(session, 1, None)
        gate.set()
        assert all(scheduler.drained(session, SOON) for session in sessions)
    assert [type(failure) for failure in failures] == [error] * 2


def test_what_a_failure_handler_raises_is_reported_and_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_value))
    with Scheduler(plain_stages(1)) as scheduler:
        session = scheduler.open(lambda error: fail("handler"))
        scheduler.submit(session, 0, lambda: fail("task"))
        assert scheduler.drained(session, SOON)
        scheduler.revive(session)
        scheduler.submit(session, 0, lambda: None)
        assert scheduler.drained(session, SOON)
    assert [error.args for error in reported] == [("handler",)]


def test_tasks_may_submit_and_cancel_but_not_wait() -> None:
    refused: list[Exception] = []
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count < 200:
            scheduler.submit(session, count % 2, step)
            return
        for wait in (lambda: scheduler.drained(session), scheduler.shutdown):
            try:
                wait()
            except SchedulerError as error:
                refused.append(error)
        assert not scheduler.drained(session, 0.0)
        scheduler.submit(session, 1, step)  # behind this one
        scheduler.cancel(session)

    with Scheduler(plain_stages(2)) as scheduler:
        session = scheduler.open()
        scheduler.submit(session, 0, step)
        assert scheduler.drained(session, SOON)
    assert (count, len(refused)) == (200, 2)


def test_a_stage_keeps_its_thread_and_its_thread_local_values() -> None:
    local = threading.local()
    seen: list[int] = []

    def run(payloads: list[None]) -> None:
        local.count = getattr(local, "count", 0) + 1
        seen.append(local.count)

    with Scheduler([Stage("only", run)]) as scheduler:
        session = scheduler.open()
        for _ in range(20):
            scheduler.submit(session, 0, None)
            assert scheduler.drained(session, SOON)
    assert seen == list(range(1, 21))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(TypeError):
        Stage("none", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_batch"):
        Stage("none", call_each, max_batch=0)
    for arguments in ({"width": 0}, {"order": "random"}, {"stages": []}):
        with pytest.raises(ValueError):
            Scheduler(**({"stages": plain_stages(1)} | arguments))  # type: ignore[arg-type]
    with Scheduler(plain_stages(1)) as scheduler:
        session, other = scheduler.open(), scheduler.open()
        theirs = scheduler.submit(other, 0, lambda: None)
        for arguments in ((session, 1, None), (session, 0, None, [theirs + 5]), (99, 0, None)):
            with pytest.raises(ValueError):
                scheduler.submit(*arguments)
        for seconds in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError):
                scheduler.delivered(session, seconds)
        with pytest.raises(ValueError):
            scheduler.open(run_ahead=-1.0)
        scheduler.close(session)
        scheduler.cancel(session)
        assert scheduler.drained(session)
        with pytest.raises(SessionCancelledError, match="closed"):
            scheduler.submit(session, 0, lambda: None)
    for refused in (scheduler.open, lambda: scheduler.submit(other, 0, lambda: None)):
        with pytest.raises(SchedulerClosedError):
            refused()
