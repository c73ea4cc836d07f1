"""`live.json` as a page to read."""

from __future__ import annotations

from typing import Any

from omni2_bench.common.results import table

FIGURES = {  # heading → figure
    "decision": "decision_p50",
    "first sound": "first_sound_p50",
    "p95": "first_sound_p95",
    "server, mean": "server_mean",
    "socket, mean": "socket_mean",
    "worst gap": "gap_max",
    "stops": "stopped_p50",
    "stops p95": "stopped_p95",
}


def page(record: dict[str, Any]) -> str:
    """A table with a row per condition."""
    rows = [_row(condition) for condition in record["conditions"]]
    problems = [problem for condition in record["conditions"] for problem in condition.get("problems", [])]
    parts = [
        f"# Live speech: {record['engine']}\n",
        f"Recorded questions, sent in real time over WebSockets to `omni2-engine serve`; conversations of "
        f"{record['turns']} turns, {record['rounds']} times. Milliseconds from the last voiced frame sent: to the "
        "decision that the question is over, and to the first sound. Of the time between, *server* is what the server "
        "says itself, *socket* what is added on the way to the client. *Stops*: from the first voiced frame of an "
        "interruption to the last sound sent.\n",
        table(["silence, speculation", "conversations", "turns", *FIGURES], rows),
        f"Load of the machine at the end: {record['load']:.1f}.\n",
    ]
    if problems:
        parts.append("Problems: " + "; ".join(sorted(set(problems))) + ".\n")
    return "\n".join(parts)


def _row(condition: dict[str, Any]) -> list[str]:
    how = f"{1000 * condition['silence']:.0f} ms, {'with' if condition['speculate'] else 'without'}"
    if condition["interrupts"]:
        how += ", interrupted"
    cells = [how, str(condition["conversations"]), str(condition["turns"])]
    for figure in FIGURES.values():
        value = condition["figures"].get(figure)
        cells.append("–" if value is None else f"{1000 * value:.0f}")
    return cells
