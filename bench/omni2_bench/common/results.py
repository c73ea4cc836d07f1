"""Writes what a benchmark found: a record for machines and a page for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Say = Callable[[str], None]  # takes a line of progress


def write_results(out: Path, name: str, record: dict[str, Any], page: str) -> str:
    """Write `NAME.json` and `NAME.md`.

    Args:
        out: directory; made if it is missing.
        name: of both files.
        record: what was found, for JSON.
        page: the same as Markdown.

    Returns:
        The page.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    (out / f"{name}.md").write_text(page, encoding="utf-8")
    return page


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
