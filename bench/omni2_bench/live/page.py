"""`live.json` as a page to read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from omni2_bench.common.results import table

FIGURES = {  # heading → figure
    "decision": "decision_p50",
    "first sound": "first_sound_p50",
    "p95": "first_sound_p95",
    "server, mean": "server_mean",
    "socket, mean": "socket_mean",
    "worst gap": "gap_max",
    "told": "told_p50",
    "told p95": "told_p95",
    "last sound": "stopped_p50",
    "last sound p95": "stopped_p95",
}


def page(record: dict[str, Any]) -> str:
    """What was measured and how; a table with a row per condition."""
    problems = [problem for condition in record["conditions"] for problem in condition.get("problems", [])]
    parts = [
        f"# Live speech: {record['engine']}\n",
        f"Recorded questions, sent in real time over WebSockets to `omni2-engine serve`; conversations of "
        f"{record['turns']} turns, {record['rounds']} times. Milliseconds from the last voiced frame sent: to the "
        "decision that the question is over, and to the first sound. Of the time between, *server* is what the server "
        "says itself, *socket* what is added on the way to the client. From the first voiced frame of an interruption: "
        "*told*, to the event with which the client falls silent, and *last sound*, to the last sound that was sent "
        "all the same, 0 if none was.\n",
        conditions_table(record["conditions"]),
        f"Load of the machine at the end: {record['load']:.1f}.\n",
    ]
    if problems:
        parts.append("Problems: " + "; ".join(sorted(set(problems))) + ".\n")
    return "\n".join(parts)


def conditions_table(conditions: Iterable[dict[str, Any]]) -> str:
    """A row per condition, in milliseconds; conditions as in `live.json`."""
    return table(["silence, speculation", "conversations", "turns", *FIGURES], [_row(one) for one in conditions])


def name_of(condition: dict[str, Any]) -> str:
    """Its silence, speculation and interruption in words."""
    how = f"{1000 * condition['silence']:.0f} ms, {'with' if condition['speculate'] else 'without'}"
    return f"{how}, interrupted" if condition["interrupts"] else how


def milliseconds(seconds: float | None) -> str:
    """As a cell of a table."""
    return "–" if seconds is None else f"{1000 * seconds:.0f}"


def _row(condition: dict[str, Any]) -> list[str]:
    figures = (condition["figures"].get(figure) for figure in FIGURES.values())
    cells = [name_of(condition), str(condition["conversations"]), str(condition["turns"])]
    return [*cells, *map(milliseconds, figures)]
