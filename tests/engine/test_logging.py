"""What a person who runs a service reads in the log: loading, admission, eviction, cancellation."""

from __future__ import annotations

import ast
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni2_engine import EarlierTurn, Engine
from omni2_engine.errors import BusyError, CapacityError, SettingError
from omni2_engine.live.events import Failed
from omni2_engine.memory.budget import MemoryBudget
from omni2_engine.sessions.waiting_turns import WaitingTurns
from omni2_engine.settings.tuning import MEMORY
from omni2_engine.system import waits

LIMITS = {"max_new_tokens": 4, "max_last_write": 8}
Utterance = Callable[..., np.ndarray]


@pytest.fixture
def read(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], list[str]]]:
    """What a room of the engine has logged since the last time; at level INFO."""

    def messages(room: str) -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.name == f"omni2_engine.{room}"]
        caplog.clear()
        return found

    with caplog.at_level(logging.INFO, logger="omni2_engine"):
        yield messages


def small(tiny_engine_dir: Path, **options: Any) -> Engine:
    return Engine.load(tiny_engine_dir, threads=1, warm_up=False, device="cpu", **options)


def take(engine: Engine, utterance: Utterance, **options: Any) -> None:
    for _ in engine.stream(utterance(1, 0.3), sample_rate=16_000, **LIMITS, **options):
        pass


def test_loading_says_what_runs_where_in_which_format(tiny_engine_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="omni2_engine"):
        engine = Engine.load(tiny_engine_dir, threads=1, device="cpu", sessions=2, memory=123_000_000, max_context=300)
    engine.close()
    manifest = engine.directory.manifest
    told = [record.getMessage() for record in caplog.records if record.name == "omni2_engine.backends"]
    stages = dict(re.fullmatch(r"loaded (\w+) \((\w+)\) in \d+ ms", line).groups() for line in told)  # type: ignore[union-attr]
    assert set(stages) >= {"log_mel", "encoder", "llm", "speech_lm", "fusion", "flow_step", "vocoder"}
    assert stages == {name: manifest.precision.get(name, "fp32") for name in stages}
    loaded, warm = (record.getMessage() for record in caplog.records if record.name == "omni2_engine.engine")
    assert re.fullmatch(
        rf"loaded {re.escape(manifest.model.name)} from {re.escape(str(tiny_engine_dir))} in \d+ ms: "
        r"ONNX Runtime \S+ on the CPU, 1 threads a call; "
        r"2 sessions share calls, 300 positions a conversation, 0\.12 GB for states",
        loaded,
    )
    assert re.fullmatch(r"warmed up in \d+ ms", warm)


def test_a_turn_s_own_logger_has_one_line_of_figures_a_turn(
    shared_engine: Engine, utterance: Utterance, read: Callable[[str], list[str]]
) -> None:
    take(shared_engine, utterance)
    (line,) = read("turn")
    assert line.startswith("{") and '"finish_reason"' in line


def test_shortening_and_refusal_are_logged(
    tiny_engine_dir: Path, utterance: Utterance, read: Callable[[str], list[str]]
) -> None:
    probe = small(tiny_engine_dir)
    positions = probe.pipeline.speech_positions(LIMITS["max_new_tokens"], LIMITS["max_last_write"])
    least, full = probe.states._turn_sizes(positions, 100.0)
    conversation = probe.states._conversations.slot_nbytes
    probe.close()
    assert least < full
    read("memory")
    with small(tiny_engine_dir, memory=conversation + (least + full) // 2) as engine:
        conversation_held = engine.session()
        states = waits.run(engine.states.begin(engine.voice_features(), positions, 100.0))
        (line,) = read("memory")
        assert re.fullmatch(r"left context of a turn shortened from 30 to \S+ s for lack of memory", line)
        with pytest.raises(CapacityError) as refused:
            waits.run(engine.states.begin(engine.voice_features(), positions, 100.0))
        assert read("memory") == [f"refused for lack of memory: {refused.value.problem}"]
        engine.states.end(states)
        conversation_held.close()


def test_waiting_for_memory_is_logged_and_only_waiting(read: Callable[[str], list[str]]) -> None:
    budget = MemoryBudget(1_000_000_000)
    at_once = waits.run(budget.take(700_000_000, 700_000_000, wait=True))
    assert read("memory") == []
    waiting = budget.take(600_000_000, 600_000_000, wait=True)
    granted = next(waiting)
    assert read("memory") == ["waiting for 0.60 GB of memory: 0.70 GB of 1.00 GB in use"]
    budget.give_back(at_once)
    with pytest.raises(StopIteration):
        waiting.send(granted.result())
    (line,) = read("memory")
    assert re.fullmatch(r"got 0\.60 GB of memory after \d+ ms", line)


def test_a_refused_turn_is_logged(read: Callable[[str], list[str]]) -> None:
    waiting = WaitingTurns(limit=1)
    waiting.enter()
    assert read("sessions") == []
    with pytest.raises(BusyError):
        waiting.enter()
    assert read("sessions") == ["turn refused: 1 wait, ask again in 0.0 s"]


def test_a_full_context_and_a_full_prefix_cache_are_logged(
    tiny_engine_dir: Path, utterance: Utterance, read: Callable[[str], list[str]]
) -> None:
    with small(tiny_engine_dir, max_context=60) as engine, engine.session(**LIMITS) as session:
        dropped = 0
        while not dropped:
            for _ in session.stream(text="tell me more about it"):
                pass
            assert session.metrics is not None
            dropped = session.metrics.dropped_turns
            said = read("sessions")
            assert bool(said) == bool(dropped)
        assert re.fullmatch(rf"context full: {dropped} of \d+ earlier turns dropped, \d+ positions stay", said[0])
    with small(tiny_engine_dir) as engine:
        for number in range(MEMORY.prefixes + 1):
            assert read("memory") == []
            take(engine, utterance, system=f"Number {number}.")
        (line,) = read("memory")
        assert re.fullmatch(r"prefix cache full: a system prompt of \d+ positions dropped", line)


def test_a_history_that_fills_the_context_is_logged_once(
    tiny_engine_dir: Path, read: Callable[[str], list[str]]
) -> None:
    with small(tiny_engine_dir, max_context=120) as engine:
        turns = [EarlierTurn("no", text="tell me more about it") for _ in range(30)]
        with engine.session(**LIMITS, history=turns) as session:
            kept = len(session._state.history.exchanges)
        (line,) = read("sessions")
    assert re.fullmatch(rf"context full: {30 - kept} of 29 earlier turns dropped, \d+ positions stay", line)


def test_an_unexpected_error_of_a_live_conversation_is_logged_with_its_trace(
    shared_engine: Engine, utterance: Utterance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer, a given answer, the next one again; and what a user can get wrong is not."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("out of order")

    monkeypatch.setattr(type(shared_engine.pipeline.encoder), "__call__", broken)
    with shared_engine.live(detection=None, **LIMITS) as live:
        for ask in (live.respond, partial(live.answered, "no")):
            live.feed(utterance(1, 0.3))
            live.commit()
            ask()
        live.respond()
        live.end()
        failed = [event.error for event in live if isinstance(event, Failed)]
    assert [type(error) for error in failed] == [RuntimeError, RuntimeError, SettingError]
    logged = [record for record in caplog.records if record.name == "omni2_engine.live"]
    assert [record.levelno for record in logged] == [logging.ERROR] * 2
    assert all(record.exc_info and "broken" in traceback.format_tb(record.exc_info[2])[-1] for record in logged)


def test_cancellation_and_failure_are_logged(
    shared_engine: Engine, utterance: Utterance, read: Callable[[str], list[str]]
) -> None:
    with shared_engine.session(**LIMITS) as session:
        with session.stream(utterance(1, 0.3), sample_rate=16_000) as answer:
            session.cancel()
            for _ in answer:
                pass
        (line,) = read("sessions")
        assert re.fullmatch(r"turn 0 cancelled after \d+ ms and \d+ chunks", line)
        answer = session.stream(utterance(1, 0.3), sample_rate=16_000, steer=lambda *_: 1 / 0)  # type: ignore[arg-type,return-value]
        with pytest.raises(ZeroDivisionError):
            list(answer)
        assert "a step of a turn failed: division by zero" in read("sessions")


def test_every_logger_is_a_room_s(repository: Path) -> None:
    package = repository / "engine" / "omni2_engine"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    names = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}: name the room's logger"
                names.add(argument.value)
    assert names and {name.removeprefix("omni2_engine.") for name in names} <= rooms
    page = (repository / "docs" / "logging.md").read_text(encoding="utf-8")
    assert {name for name in names if f"`{name}`" not in page} == set()
