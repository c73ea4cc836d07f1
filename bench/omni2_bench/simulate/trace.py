"""A simulated schedule as a trace that https://ui.perfetto.dev and chrome://tracing show (Trace Event Format, JSON)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni2_bench.simulate.turns import SimulatedTurn
from omni2_engine.turn.playout import playback

MODEL = "computed from a model of stage times; nothing ran on a GPU"
PLAYERS = "players"
Event = dict[str, Any]


@dataclass(frozen=True)
class CallSpan:
    """One call of a stage.

    Args:
        stage: its name.
        start, stop: seconds.
        sessions: that share the call.
    """

    stage: str
    start: float
    stop: float
    sessions: tuple[int, ...]


def write_trace(path: Path, spans: Sequence[CallSpan], turns: Sequence[SimulatedTurn]) -> None:
    """Write a trace: a process per stage and one for the players, in each a thread per session.

    Args:
        path: of the JSON file.
        spans: calls of all stages.
        turns: what was asked and heard.
    """
    stages = list(dict.fromkeys(span.stage for span in spans))
    processes = {name: number for number, name in enumerate([*stages, PLAYERS], 1)}
    sessions = sorted({session for span in spans for session in span.sessions})
    events: list[Event] = []
    for name, process in processes.items():
        events += [_named("process", process, 0, name), _sorted_at(process)]
        events += [_named("thread", process, session, f"session {session}") for session in sessions]
    for span in spans:
        for session in span.sessions:
            event = _slice(span.stage, processes[span.stage], session, span.start, span.stop - span.start)
            events.append(event | {"args": {"sessions in the call": len(span.sessions)}})
    for turn in turns:
        events += _player(turn, processes[PLAYERS])
    trace = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"source": MODEL}}
    path.write_text(json.dumps(trace), encoding="utf-8")


def _player(turn: SimulatedTurn, process: int) -> list[Event]:
    playing, starving = playback(turn.ready, turn.durations)
    place = (process, turn.session)
    return [
        _slice("waiting for the first chunk", *place, turn.asked, turn.first_chunk),
        *(_slice("playing", *place, start, length) for start, length in playing),
        *(_slice("starving", *place, start, length) for start, length in starving),
    ]


def _slice(name: str, process: int, thread: int, start: float, length: float) -> Event:
    return {"ph": "X", "name": name, "pid": process, "tid": thread, "ts": 1e6 * start, "dur": 1e6 * length}  # in µs


def _named(kind: str, process: int, thread: int, name: str) -> Event:
    return {"ph": "M", "name": f"{kind}_name", "pid": process, "tid": thread, "args": {"name": name}}


def _sorted_at(process: int) -> Event:
    return {"ph": "M", "name": "process_sort_index", "pid": process, "tid": 0, "args": {"sort_index": process}}
