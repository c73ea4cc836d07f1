"""The soak of the laboratory: what it calls growth, how it accounts for answers, and a short one of a real server."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as Counted
from prometheus_client.parser import text_string_to_metric_families

from omni2_bench.common.server_process import Scrape, ServerProcess
from omni2_bench.load.caller import Server
from omni2_bench.load.recordings import recording
from omni2_bench.load.records import Call, HeardTurn
from omni2_bench.load.visits import Behaviour, visits
from omni2_bench.soak import samples as samples_module
from omni2_bench.soak.accounts import Accounts
from omni2_bench.soak.load import converse
from omni2_bench.soak.run import SoakPlan, run
from omni2_bench.soak.samples import HeldSample, look
from omni2_bench.soak.trends import trend
from omni2_bench.soak.verdict import SoakVerdict
from omni2_engine.errors import BackendError

from ..load.server import ToneServer
from ..load.test_load import question as tone

MIB = 2**20
PATIENCE = 1500.0  # seconds: other processes may hold this one up
LEVEL = HeldSample(0.0, 300 * MIB, 200 * MIB, 20, 12, 0, 0, 0, 0, 0)
BALANCED = Accounts(
    Counter(done=8, vanished=2, refused=3),
    Counter(completed=20, interrupted=3, vanished=2),
    Counter(end=20, limit=1, cancelled=3, gone=1),
    refused=3,
)


def samples(anonymous: Any, minutes: int = 60) -> list[HeldSample]:
    """One every five seconds, with the memory that a function of the seconds says."""
    return [replace(LEVEL, seconds=float(at), anonymous=int(anonymous(at))) for at in range(0, 60 * minutes, 5)]


def problems(found: list[HeldSample], after: HeldSample = LEVEL, accounts: Accounts = BALANCED, code: int = 0) -> Any:
    return SoakVerdict(accounts, LEVEL, after, found, 600.0, code).problems


def test_a_level_with_noise_does_not_grow() -> None:
    noise = random.Random(1)
    assert problems(samples(lambda at: 200 * MIB + noise.gauss(0, 5 * MIB))) == []


def test_a_warm_up_does_not_count() -> None:
    assert problems(samples(lambda at: min(200, 100 + at / 6) * MIB)) == []


@pytest.mark.parametrize("per_hour", [6, 40])
def test_a_leak_below_the_noise_is_found(per_hour: int) -> None:
    noise = random.Random(2)
    (found,) = problems(samples(lambda at: (200 + per_hour * at / 3600 + noise.gauss(0, 2)) * MIB))
    assert "anonymous grows" in found
    line = trend([float(at) for at in range(0, 3600, 5)], [at / 3600 for at in range(0, 3600, 5)])
    assert line is not None and line.per_hour == pytest.approx(1.0) and line.error < 1e-9


def test_too_few_samples_say_nothing() -> None:
    assert trend([1.0, 2.0], [1.0, 2.0]) is None


def test_a_time_too_short_for_several_conversations_says_nothing() -> None:
    """Three minutes in which ever more conversations are held are no growth."""
    seconds = [float(at) for at in range(180)]
    assert trend(seconds, seconds) is None
    assert trend([4 * at for at in seconds], seconds) is not None


def test_what_is_left_is_named() -> None:
    flat = samples(lambda at: 200 * MIB)
    for name, value in {"sessions": 1, "waiting": 2, "memory": 3, "threads": 21, "descriptors": 13}.items():
        (found,) = problems(flat, replace(LEVEL, **{name: value}))
        assert name in found and str(value) in found
    assert problems(flat, code=-9) == ["the server ended with exit code -9"]


def test_accounts_that_add_up() -> None:
    assert BALANCED.problems() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"turns": Counter(completed=20, interrupted=3, vanished=1, failed=1)}, "1 questions failed"),
        ({"turns": Counter(completed=20, interrupted=3, vanished=1, unanswered=1)}, "1 questions unanswered"),
        ({"turns": Counter(completed=19, interrupted=3, vanished=2)}, "24 questions were asked"),
        ({"answers": Counter(end=20, cancelled=2, gone=3)}, "3 answers interrupted, and the server counts 2"),
        ({"answers": Counter(end=19, cancelled=3, gone=3)}, "20 answers completed, and the server counts 19"),
        ({"answers": Counter(end=21, cancelled=3, error=1)}, "1 answers ended with an error"),
        ({"refused": 2}, "3 conversations refused, and the server counts 2"),
        ({"calls": Counter(done=8, vanished=2, refused=3, failed=1)}, "1 conversations failed"),
    ],
)
def test_an_answer_that_is_missing_is_found(change: dict[str, Any], said: str) -> None:
    assert any(said in found for found in replace(BALANCED, **change).problems())


def test_counts_are_what_a_load_added() -> None:
    registry = CollectorRegistry()
    turns = Counted("omni2_turns", "", ["reason"], registry=registry)
    refused = Counted("omni2_refused", "", ["reason"], registry=registry)

    def scrape() -> Scrape:
        families = text_string_to_metric_families(generate_latest(registry).decode())
        return Scrape([sample for family in families for sample in family.samples])

    turns.labels("end").inc()
    before = scrape()
    turns.labels("end").inc(2)
    turns.labels("cancelled").inc()
    refused.labels("full").inc()
    calls = [Call(0.0, "done", turns=[HeardTurn(status="completed"), HeardTurn(status="completed")])]
    calls += [Call(0.0, "done", turns=[HeardTurn(status="interrupted")]), Call(0.0, "refused")]
    found = Accounts.of(calls, before, scrape())
    assert found.answers == {"end": 2, "cancelled": 1} and found.refused == 1 and found.problems() == []


def test_a_load_that_is_told_to_stop_comes_to_its_end(tmp_path: Path) -> None:
    """Conversations that go on are finished, others do not begin, and all of them are written down."""

    async def main() -> list[Call]:
        stop = asyncio.Event()
        behaviour = Behaviour(1.0, 1e9, turns=1, interrupts=0.0, vanishes=0.0)
        async with ToneServer(thinks=0.01, every=0.01).running() as url:

            def planned() -> Any:
                for number, visit in enumerate(visits(replace(behaviour, seconds=100.0), 1)):
                    if number == 2:
                        stop.set()
                    yield replace(visit, begins=0.0 if number < 2 else visit.begins)

            server = Server(url, patience=PATIENCE)
            return await converse(server, planned(), [recording(tone())], tmp_path / "calls.jsonl", stop)

    calls = asyncio.run(main())
    assert [call.outcome for call in calls] == ["done", "done"]
    lines = (tmp_path / "calls.jsonl").read_text().splitlines()
    assert [json.loads(line)["outcome"] for line in lines] == ["done", "done"]


def test_a_short_soak(repository: Path, tiny_engine_dir: Path, tmp_path: Path) -> None:
    """Callers who interrupt, vanish and are refused: both sides count the same, and nothing is left."""
    behaviour = Behaviour(1.0, 1e9, turns=2, think=0.2, interrupts=0.3, vanishes=0.3, seed=3)
    plan = SoakPlan(
        tiny_engine_dir,
        [repository / "examples" / "sum.wav"],
        behaviour,
        conversations=10,
        sessions=3,
        every=0.5,
        warm_up=1e9,
        settle=PATIENCE,
        patience=PATIENCE,
        options=("--threads", "1"),
    )
    said: list[str] = []
    verdict = run(plan, tmp_path, said.append)
    assert verdict.problems == []
    assert verdict.accounts.calls.total() == 10 and verdict.accounts.calls["vanished"] > 0
    with (tmp_path / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(verdict.samples) and any(int(row["sessions"]) for row in rows)
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 10
    assert "**All is well.**" in (tmp_path / "soak.md").read_text() == said[-1]
    assert json.loads((tmp_path / "soak.json").read_text())["verdict"]["problems"] == []
    assert (tmp_path / "soak.png").stat().st_size > 10_000


def test_a_server_that_dies_is_told(
    repository: Path, tiny_engine_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a conversation; no other begins, and what was seen has been written."""

    def look_and_kill(process: ServerProcess, seconds: float) -> HeldSample:
        found = look(process, seconds)
        if found.sessions:
            os.kill(process.pid, signal.SIGKILL)
        return found

    monkeypatch.setattr(samples_module, "look", look_and_kill)
    behaviour = Behaviour(0.5, 1e9, turns=2, think=0.2, interrupts=0.0, vanishes=0.0)
    questions = [repository / "examples" / "sum.wav"]
    plan = SoakPlan(tiny_engine_dir, questions, behaviour, every=0.05, settle=PATIENCE, patience=PATIENCE)
    with pytest.raises(BackendError, match="the server has ended"):
        run(plan, tmp_path, lambda line: None)
    outcomes = [json.loads(line)["outcome"] for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert outcomes and set(outcomes) == {"failed"}
    assert len((tmp_path / "samples.csv").read_text().splitlines()) > 1
