"""One soak, from the start of the server to the verdict."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from omni2_bench.common import machine
from omni2_bench.common.results import Say, write_results
from omni2_bench.common.server_process import ServerProcess
from omni2_bench.load.caller import Server
from omni2_bench.load.recordings import RecordedQuestion, read_recording
from omni2_bench.load.records import Call
from omni2_bench.load.trial import Trial
from omni2_bench.load.visits import Behaviour, PlannedTurn, Visit, arriving
from omni2_bench.soak.accounts import Accounts
from omni2_bench.soak.load import converse
from omni2_bench.soak.page import page
from omni2_bench.soak.plot import draw
from omni2_bench.soak.samples import HeldSample, look, sampled
from omni2_bench.soak.verdict import SoakVerdict, left
from omni2_engine.errors import BackendError

DRAIN = 60  # seconds
LOOKS = 5


@dataclass(frozen=True)
class SoakPlan:
    """What to do.

    Args:
        engine: engine directory.
        questions: recordings.
        behaviour: of the callers; conversations begin for its seconds.
        conversations: that many at most; None for as many as begin.
        sessions: places of the server.
        every: seconds between samples.
        warm_up: seconds of samples that do not count for trends.
        settle: seconds that the server gets to be empty after the load.
        patience: see `Server`.
        options: of `omni2-engine serve`, beside the places.
    """

    engine: Path
    questions: list[Path]
    behaviour: Behaviour
    conversations: int | None = None
    sessions: int = 8
    every: float = 5.0
    warm_up: float = 600.0
    settle: float = 60.0
    patience: float = 60.0
    options: tuple[str, ...] = ()

    def visits(self) -> Iterator[Visit]:
        """The conversations, in the order of their beginnings."""
        begun = takewhile(
            lambda visit: visit.begins < self.behaviour.seconds, arriving(self.behaviour, len(self.questions))
        )
        return islice(begun, self.conversations)


@dataclass(frozen=True)
class _Seen:
    """What was seen of a load."""

    calls: list[Call]
    accounts: Accounts
    before: HeldSample
    after: HeldSample
    samples: list[HeldSample]


def run(plan: SoakPlan, out: Path, say: Say) -> SoakVerdict:
    """Start the server, load it, stop it, and write what was found.

    `samples.csv` and `calls.jsonl` are written as the load goes on. SIGINT or SIGTERM ends the load early: no further
    conversation begins, and the verdict is of what there was.

    Raises:
        BackendError: the server does not start, or ends during the load; the two files have what was seen until then.
    """
    out.mkdir(parents=True, exist_ok=True)
    recordings, began = [read_recording(path) for path in plan.questions], time.monotonic()
    options = ("--sessions", str(plan.sessions), "--drain", str(DRAIN), *plan.options)
    with ServerProcess(plan.engine, out / "server.log", *options, grace=DRAIN + 30.0) as process:
        try:
            seen = asyncio.run(_load(plan, process, recordings, out, say))
        except OSError as error:
            raise BackendError(f"the server has ended: {error}", f"read {out / 'server.log'}") from None
        exit_code = process.stop()
    verdict = SoakVerdict(seen.accounts, seen.before, seen.after, seen.samples, plan.warm_up, exit_code)
    record: dict[str, Any] = {
        "engine": str(plan.engine),
        "machine": machine.describe(0),
        "load": machine.load(),
        "hours": (time.monotonic() - began) / 3600,
        "behaviour": asdict(plan.behaviour),
        "sessions": plan.sessions,
        "warm_up": plan.warm_up,
        "figures": Trial(plan.behaviour, seen.calls).figures(),
        "verdict": verdict.record(),
    }
    say(write_results(out, "soak", record, page(record)))
    draw(seen.samples, out / "soak.png")
    return verdict


async def _load(
    plan: SoakPlan, process: ServerProcess, recordings: list[RecordedQuestion], out: Path, say: Say
) -> _Seen:
    server, stop = Server(process.url, patience=plan.patience), asyncio.Event()
    # what is made once is made in a first conversation, which does not count
    first = [Visit(0.0, (PlannedTurn(0, 0.0),))]
    await converse(server, first, recordings, out / "first.jsonl", stop)
    before = await _left(process, plan.settle)
    counted = process.scrape()
    loop = asyncio.get_running_loop()
    say(f"{process.address}, process {process.pid}: the load begins")
    with (
        _told_to_stop(loop, stop),
        sampled(process, out / "samples.csv", plan.every, lambda: loop.call_soon_threadsafe(stop.set)) as samples,
    ):
        calls = await converse(server, plan.visits(), recordings, out / "calls.jsonl", stop)
    after = await _left(process, plan.settle, before)
    return _Seen(calls, Accounts.of(calls, counted, process.scrape()), before, after, list(samples))


async def _left(process: ServerProcess, seconds: float, before: HeldSample | None = None) -> HeldSample:
    """A look at a server without load: once it holds no more than it should, or when it has had its time.

    Connections of earlier looks may be open for a moment, so without a look to compare with the least of some counts.
    """
    until, looks = time.monotonic() + seconds, list[HeldSample]()
    while True:
        looks.append(await asyncio.to_thread(look, process, 0.0))
        settled = len(looks) >= LOOKS if before is None else not left(before, looks[-1])
        if (settled and not looks[-1].busy) or time.monotonic() > until:
            return min(looks[-LOOKS:], key=lambda found: found.descriptors) if before is None else looks[-1]
        await asyncio.sleep(0.1)


@contextmanager
def _told_to_stop(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set the event meanwhile."""
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
