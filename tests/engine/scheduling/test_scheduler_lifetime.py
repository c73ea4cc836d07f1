"""Cancelling at any moment, and ends of every kind: nothing starts afterwards, nothing is left, nothing hangs."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from omni2_engine._core import Scheduler, SchedulerClosedError, Stage

from ...waiting import SOON, eventually


class Payload:
    """Something whose end can be watched."""


class Threads:
    """The threads of this process as they are now, those included that Python does not know."""

    def __init__(self) -> None:
        if not Path("/proc/self/task").is_dir():
            pytest.skip("threads are counted in /proc, as Linux has it")
        self.before = self._now()

    def _now(self) -> set[str]:
        return set(os.listdir("/proc/self/task"))

    def more(self) -> set[str]:
        """Threads that have come since."""
        return self._now() - self.before

    def gone(self) -> bool:
        """Waits until none is left; one that has just ended may take a moment to leave the list."""
        return eventually(lambda: not self.more())


def plain_stages(count: int) -> list[Stage]:
    return [Stage(str(i), lambda payloads: None) for i in range(count)]


def test_1000_cancellations_at_random_moments() -> None:
    """A chain of tasks is cancelled when some of them have begun, from another thread than those that run it.

    Every other time the task is held until `cancel` has returned: no other may follow. The other times the chain runs
    on meanwhile: one that was already begun may follow. The session beside it is served on and on, in order.
    """
    randomness = random.Random(1)
    entered = left = stop_at = 0
    reached, through = threading.Event(), threading.Event()

    def work(payloads: list[Payload]) -> None:
        nonlocal entered, left
        entered += 1
        if entered == stop_at:
            reached.set()
            assert through.wait(SOON)
        left += 1

    others: list[int] = []
    over = False

    def other_work(payloads: list[int]) -> None:
        others.append(payloads[0])
        if not over:
            scheduler.submit(other, 2, payloads[0] + 1)

    threads = Threads()
    followed_inside = followed_between = 0
    alive: list[weakref.ref[Payload]] = []
    scheduler = Scheduler([Stage("a", work), Stage("b", work), Stage("other", other_work)])
    with scheduler:
        other, session = scheduler.open(), scheduler.open()
        scheduler.submit(other, 2, 0)
        for number in range(1000):
            entered, left, stop_at, held = 0, 0, randomness.randint(1, 6), number % 2 == 0
            reached.clear()
            through.clear() if held else through.set()
            after: tuple[int, ...] = ()
            for i in range(6):
                payload = Payload()
                alive.append(weakref.ref(payload))
                after = (scheduler.submit(session, i % 2, payload, after),)
                del payload
            assert reached.wait(SOON)
            scheduler.cancel(session)
            entered_then = entered
            if held:
                served = len(others)
                assert eventually(lambda served=served: len(others) > served)
            through.set()
            assert scheduler.drained(session, SOON)
            if held:
                assert entered_then == stop_at
                followed_inside += entered - entered_then
            else:
                followed_between += max(0, entered - entered_then - 1)
            assert entered == left
            scheduler.revive(session)
        over = True
        assert scheduler.drained(other, SOON)
        assert scheduler.counts() == (2, 0, 0)
    assert (followed_inside, followed_between) == (0, 0)
    assert [ref for ref in alive if ref() is not None] == []
    assert others == list(range(len(others))) and len(others) > 100
    assert threads.gone()


def test_a_drained_session_holds_no_payload() -> None:
    with Scheduler(plain_stages(2)) as scheduler:
        session = scheduler.open()
        for end in (lambda: None, lambda: scheduler.cancel(session), lambda: scheduler.close(session)):
            payloads = [Payload() for _ in range(50)]
            alive = [weakref.ref(payload) for payload in payloads]
            for i, payload in enumerate(payloads):
                scheduler.submit(session, i % 2, payload)
            del payloads, payload
            end()
            assert scheduler.drained(session, SOON)
            assert [ref for ref in alive if ref() is not None] == []
            scheduler.cancel(session)
            if scheduler.counts()[0]:
                scheduler.revive(session)
        assert scheduler.counts() == (0, 0, 0)


# in a process of its own: what other tests hold and give back would be counted with it
COMING_AND_GOING = """
import os
from pathlib import Path
from omni2_engine._core import Scheduler, Stage

def round_trip():
    with Scheduler([Stage(str(i), lambda payloads: None) for i in range(3)]) as scheduler:
        for _ in range(20):
            session = scheduler.open(lambda error: None)
            for stage in range(3):
                scheduler.submit(session, stage, bytearray(100_000))
            scheduler.close(session)

def threads():
    return set(os.listdir("/proc/self/task"))

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

round_trip()
threads_before, before = threads(), resident()
for _ in range(50):
    round_trip()
while threads() - threads_before:  # one that has just ended may take a moment to leave the list
    pass
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="threads and memory are counted in /proc")
def test_sessions_and_schedulers_come_and_go_without_a_trace() -> None:
    done = subprocess.run([sys.executable, "-c", COMING_AND_GOING], capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20_000_000  # 300 MB went through


def test_a_shut_down_scheduler_lets_go_of_its_stages() -> None:
    class Owner:
        def __init__(self) -> None:
            self.scheduler = Scheduler([Stage("own", self.run)])  # a circle that only shutdown() opens

        def run(self, payloads: list[object]) -> None: ...

    owner = Owner()
    alive = weakref.ref(owner)
    owner.scheduler.shutdown()
    del owner
    gc.collect()
    assert alive() is None


def test_shutting_down_waits_for_what_runs_and_drops_the_rest() -> None:
    started, through, log = threading.Event(), threading.Event(), []

    def run(payloads: list[int]) -> None:
        started.set()
        assert through.wait(SOON)
        log.append(payloads[0])

    scheduler = Scheduler([Stage("slow", run)])
    session = scheduler.open()
    for i in range(100):
        scheduler.submit(session, 0, i)
    assert started.wait(SOON)
    ending = threading.Thread(target=scheduler.shutdown, daemon=True)
    ending.start()
    with pytest.raises(SchedulerClosedError):
        while True:
            scheduler.close(scheduler.open())
    assert ending.is_alive() and log == []
    through.set()
    ending.join(SOON)
    scheduler.shutdown()
    assert not ending.is_alive() and log == [0]
    assert scheduler.drained(session)
    assert scheduler.counts() == (0, 0, 0)


def test_a_scheduler_may_be_let_go_of_by_its_own_task() -> None:
    """Its last reference is the payload of a task; its threads end, and what its stages hold is let go of."""
    threads = Threads()
    done = threading.Event()

    class Owner:
        def run(self, payloads: list[Any]) -> None:
            payloads[0].wait(SOON)

    class Last:
        def __init__(self, scheduler: Scheduler, gate: threading.Event) -> None:
            self.scheduler, self.wait = scheduler, gate.wait

        def __del__(self) -> None:
            done.set()

    gate, owner = threading.Event(), Owner()
    alive = weakref.ref(owner)
    scheduler = Scheduler([Stage("last", owner.run)])
    session = scheduler.open()
    scheduler.submit(session, 0, Last(scheduler, gate))
    scheduler.submit(session, 0, None)  # never runs
    del scheduler, owner
    gate.set()
    assert done.wait(SOON)
    assert eventually(lambda: alive() is None)
    assert threads.gone()


DROPPED = """
import threading
from omni2_engine._core import Scheduler, Stage
gate, made, kept = threading.Event(), threading.Event(), []

def run(payloads):
    gate.wait()
    kept.clear()
    Scheduler([Stage("other", run)])
    made.set()

scheduler = Scheduler([Stage("own", run)])
scheduler.submit(scheduler.open(), 0, None)
kept.append(scheduler)
del scheduler
gate.set()
made.wait()
"""


def test_a_task_that_lets_go_of_its_scheduler_may_make_another() -> None:
    """Its own ends behind it, which the other must not wait for."""
    ended = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=SOON)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


WITHOUT_THREADS = """
import resource, threading
from pathlib import Path
from omni2_engine._core import Scheduler, Stage
gate, dropped, kept = threading.Event(), threading.Event(), []

class Owner:
    def __del__(self):
        print("let go of")

def run(payloads, owner=Owner()):
    gate.wait()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    least, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**20, most))  # no room for a stack
    try:
        threading.Thread(target=gate.wait).start()
    except RuntimeError as error:
        print(error)
    kept.clear()
    resource.setrlimit(resource.RLIMIT_AS, (least, most))
    print("runs on")
    dropped.set()

scheduler = Scheduler([Stage("own", run)])
scheduler.submit(scheduler.open(), 0, None)
kept.append(scheduler)
del scheduler, run
gate.set()
dropped.wait()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is counted in /proc, as Linux has it")
def test_a_task_may_let_go_of_its_scheduler_where_there_are_no_more_threads() -> None:
    """It is destroyed as the interpreter ends."""
    ended = subprocess.run([sys.executable, "-c", WITHOUT_THREADS], capture_output=True, text=True, timeout=SOON)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "can't start new thread\nruns on\nlet go of\n"


EXITS = {
    "with tasks running and queued": "",
    "with an exception": "raise SystemExit(0)",
    "with a session that waits for its moment": (
        "scheduler.begin(session); scheduler.begin(scheduler.open()); scheduler.delivered(session, 1000.0)"
    ),
    "with a scheduler inside a circle": "kept = [scheduler]; kept.append(kept)",
    "while another thread waits": (
        "import threading; threading.Thread(target=scheduler.drained, args=(session,), daemon=True).start()"
    ),
    "while another thread submits": (
        "import threading\n"
        "fed = threading.Event()\n"
        "def feed():\n"
        "    while True: scheduler.submit(session, 0, object()); fed.set()\n"
        "threading.Thread(target=feed, daemon=True).start(); fed.wait()"
    ),
}


@pytest.mark.parametrize("last", EXITS)
def test_the_interpreter_ends_with_a_live_scheduler(last: str) -> None:
    script = f"""
from omni2_engine._core import Scheduler, Stage
busy = Stage("busy", lambda payloads: sum(range(10000)) and None)
scheduler = Scheduler([Stage("idle", lambda payloads: sum(range(1000)) and None), busy])
session = scheduler.open(lambda error: None, run_ahead=1.0)
for i in range(1000):
    scheduler.submit(session, i % 2, object())
{EXITS[last]}
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=SOON)
    assert ended.returncode == 0, ended.stderr
    assert "Fatal" not in ended.stderr


FORKED = """
import os, sys, threading
from omni2_engine._core import Scheduler, SchedulerClosedError, Stage

started, go = threading.Event(), threading.Event()

def work(payloads):
    started.set()
    go.wait()

scheduler = Scheduler([Stage("work", work)])
session = scheduler.open()
scheduler.submit(session, 0, None)
started.wait()
if (pid := os.fork()) == 0:
    assert scheduler.drained(session)  # nothing of it runs here
    scheduler.cancel(session)
    scheduler.close(session)
    for call in (lambda: scheduler.submit(session, 0, None), scheduler.open):
        try:
            call()
        except SchedulerClosedError:
            continue
        sys.exit(1)
    scheduler.shutdown()
    with Scheduler([Stage("work", lambda payloads: None)]) as own:
        mine = own.open()
        own.submit(mine, 0, None)
        assert own.drained(mine)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), scheduler.drained(session, 0))
go.set()
print(scheduler.drained(session))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_in_a_forked_child_a_scheduler_is_shut_down() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SOON)
    assert (done.stdout, done.stderr) == ("7 False\nTrue\n", "")
