"""`serve.json` as a page to read."""

from __future__ import annotations

from typing import Any

from omni2_bench.common.results import table

COLUMNS = {  # heading → figure, unit, factor
    "first sound p50": ("first_sound_p50", " ms", 1000),
    "p95": ("first_sound_p95", " ms", 1000),
    "p99": ("first_sound_p99", " ms", 1000),
    "decision p50": ("decision_p50", " ms", 1000),
    "continuity": ("continuity", " %", 100),
    "worst gap": ("gap_max", " ms", 1000),
    "RTF p50": ("rtf_p50", "", 1),
    "stops p95": ("stopped_p95", " ms", 1000),
    "refused": ("refused", " %", 100),
    "failed": ("failed", " %", 100),
    "unanswered": ("unanswered", " %", 100),
    "at once": ("at_once", "", 1),
}


def page(record: dict[str, Any]) -> str:
    """A table with a row per trial."""
    asked = record["behaviour"]
    parts = [
        f"# Load on {record['server']}\n",
        f"Conversations of {asked['turns']} turns begin at random for {asked['seconds']:g} s; {asked['think']:g} s of "
        f"thought on average, {asked['interrupts']:.0%} of the answers interrupted, {asked['vanishes']:.0%} of the "
        f"conversations break off; {record['silence']:g} s of silence end a question. First sound counts from the last "
        "voiced frame sent. A gap is what a player misses that starts with the first sound.\n",
    ]
    rows = [_row(trial) for trial in record["trials"]]
    parts.append(table(["rate", "conversations", "turns", *COLUMNS], rows))
    if record["objectives"]:
        promise = ", ".join(record["objectives"])
        parts.append(f"Highest rate that keeps {promise}: **{record['capacity']:.3g} conversations per second**.\n")
    problems = {problem: count for trial in record["trials"] for problem, count in trial["problems"].items()}
    if problems:
        parts.append("Problems: " + "; ".join(f"{count} × {problem}" for problem, count in problems.items()) + ".\n")
    return "\n".join(parts)


def _row(trial: dict[str, Any]) -> list[str]:
    cells = [f"{trial['rate']:.3g}", str(trial["conversations"]), str(trial["turns"])]
    for figure, unit, factor in COLUMNS.values():
        value = trial["figures"].get(figure)
        cells.append("–" if value is None else f"{value * factor:.{0 if factor > 1 else 2}f}{unit}")
    return cells
