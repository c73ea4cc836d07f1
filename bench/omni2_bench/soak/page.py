"""`soak.json` as a page to read."""

from __future__ import annotations

from typing import Any

from omni2_bench.common.results import table

MIB = 2**20
UNITS = {"resident": ("resident memory, MiB", MIB), "anonymous": ("anonymous memory, MiB", MIB)}


def page(record: dict[str, Any]) -> str:
    """Accounts, trends and the verdict."""
    asked, verdict = record["behaviour"], record["verdict"]
    callers, server = verdict["accounts"]["callers"], verdict["accounts"]["server"]
    problems = verdict["problems"]
    return "\n".join(
        [
            f"# Soak: {record['engine']}\n",
            f"{record['hours'] * 60:.0f} minutes; {asked['rate']:g} conversations of {asked['turns']} turns begin per "
            f"second, {asked['think']:g} s of thought on average, {asked['interrupts']:.0%} of the answers "
            f"interrupted, {asked['vanishes']:.0%} of the conversations break off; {record['sessions']} places. "
            f"{record['machine']['processor']}, {record['machine']['processors']} processors, load "
            f"{record['load']:.1f} at the end.\n",
            "## Every answer\n",
            table(
                ["", "callers", "server"],
                [
                    ["questions, answers", _total(callers["questions"]), _total(server["answers"])],
                    *[[name, str(count), ""] for name, count in sorted(callers["questions"].items())],
                    *[[name, "", str(count)] for name, count in sorted(server["answers"].items())],
                    ["conversations", _total(callers["conversations"]), ""],
                    ["conversations refused", str(callers["conversations"].get("refused", 0)), str(server["refused"])],
                ],
            ),
            "A caller that vanishes does not see how its answer ends; the server counts it as it ended, or as gone.\n",
            "## What the process holds\n",
            table(
                ["", "before", "median", "slope per hour", "standard error", "after", "grows"],
                [
                    _row(name, verdict["before"][name], line, verdict["after"][name])
                    for name, line in verdict["trends"].items()
                ],
            ),
            f"Slopes are fitted behind {record['warm_up'] / 60:.0f} minutes of warm-up.\n",
            "First sound "
            + _figure(record, "first_sound_p50")
            + " (p95 "
            + _figure(record, "first_sound_p95")
            + ").\n",
            "**All is well.**\n" if not problems else "**Not well:** " + "; ".join(problems) + ".\n",
        ]
    )


def _total(counts: dict[str, int]) -> str:
    return str(sum(counts.values()))


def _figure(record: dict[str, Any], name: str) -> str:
    value = record["figures"].get(name)
    return "–" if value is None else f"{value:.2f} s"


def _row(name: str, before: float, line: dict[str, Any] | None, after: float) -> list[str]:
    title, unit = UNITS.get(name, (name, 1))
    digits = 1 if unit > 1 else 0
    if line is None:
        return [title, f"{before / unit:.{digits}f}", "–", "–", "–", f"{after / unit:.{digits}f}", "too short to say"]
    return [
        title,
        f"{before / unit:.{digits}f}",
        f"{line['level'] / unit:.{digits}f}",
        f"{line['per_hour'] / unit:+.2f}",
        f"{line['error'] / unit:.2f}",
        f"{after / unit:.{digits}f}",
        "yes" if line["grows"] else "no",
    ]
