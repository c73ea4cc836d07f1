"""Shows a report: a table for people, JSON for programs."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from omni2_engine.errors import Omni2Error
from omni2_export.verify.rows import Measure, Row, VerifyReport

NARROWEST = 108  # columns the table takes at least: a log file or pipe has no width of its own


def print_report(report: VerifyReport, title: str) -> None:
    """Print every row, what was not compared, and the verdict."""
    console = Console(markup=False, emoji=False, highlight=False)
    console.width = max(console.width, NARROWEST)
    table = Table("of", "stage", "array", "worst", "limit", "measure", "verdict", title=title, box=SIMPLE_HEAD)
    for row in report.rows:
        style = "" if row.passed else "bold red"
        table.add_row(
            row.source, row.stage, row.array, _number(row, row.value), _limit(row), row.measure.value, _verdict(row),
            style=style,
        )  # fmt: skip
    if report.rows:
        console.print(table)
    for source, names in report.skipped.items():
        console.print(f"not compared in {source}: {', '.join(names)}")
    console.print(summary(report))


def summary(report: VerifyReport) -> str:
    """The verdict in one line."""
    if not report.judged:
        return "nothing was compared"
    if not report.misses:
        return f"all {len(report.judged)} comparisons pass"
    names = ", ".join(f"{row.source} {row.array}" for row in report.misses[:5])
    more = f" and {len(report.misses) - 5} more" if len(report.misses) > 5 else ""
    return f"{len(report.misses)} of {len(report.judged)} comparisons miss: {names}{more}"


def write_json(report: VerifyReport, path: Path) -> None:
    """Write the report; numbers that are not finite become null.

    Raises:
        Omni2Error: the file cannot be written.
    """
    rows = [
        {
            "file": row.source,
            "stage": row.stage,
            "array": row.array,
            "measure": row.measure.value,
            "value": row.value if math.isfinite(row.value) else None,
            "limit": row.limit,
            "passed": row.passed,
        }
        for row in report.rows
    ]
    content = {"passed": report.passed, "rows": rows, "not_compared": report.skipped}
    try:
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    except OSError as error:
        raise Omni2Error(f"cannot write {path}: {error.strerror}", "choose a writable place with --json") from error


def _number(row: Row, value: float) -> str:
    if math.isnan(value):
        return "shape or NaN"
    if row.measure is Measure.MATCH:
        return f"{value:.1%}"
    if row.measure is Measure.SNR:
        return f"{value:.1f}"
    return f"{value:.0f}" if row.measure is Measure.DIFFERENT else f"{value:.2e}"


def _limit(row: Row) -> str:
    if row.limit is None:
        return ""
    if row.measure is Measure.SNR:
        return f"≥ {round(row.limit, 1) + 0.0:.1f}"
    return f"{row.limit:g}" if row.measure is Measure.DIFFERENT else f"{row.limit:.0e}"


def _verdict(row: Row) -> str:
    if row.limit is None:
        return "told"
    return "pass" if row.passed else "MISS"
