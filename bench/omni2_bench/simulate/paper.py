"""The first-chunk latencies that the LLaMA-Omni2 paper reports for the original (its Table 6, one L40)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omni2_bench.simulate.evidence import read_table

NAME = "LLaMA-Omni2-"  # in front of every size


@dataclass(frozen=True)
class PaperRow:
    """One line of the table, in seconds.

    Args:
        size: of the model, as in `omni2_bench.random_checkpoint.PRESETS`.
        read, write: R and W.
        llm: encoder, prefill and R text tokens.
        speech: W units of the speech LM.
        synthesis: flow and vocoder.
        total: of all three.
    """

    size: str
    read: int
    write: int
    llm: float
    speech: float
    synthesis: float
    total: float


def table6() -> list[PaperRow]:
    """All lines, from the copy of the table that lies beside this file."""
    return [
        PaperRow(
            line["model"].removeprefix(NAME),
            int(line["R"]),
            int(line["W"]),
            *(float(line[column]) / 1e3 for column in ("llm_ms", "tts_ms", "fm_voc_ms", "total_ms")),
        )
        for line in read_table("paper_table6.csv")
    ]


def of(rows: Sequence[PaperRow], size: str, read: int, write: int) -> PaperRow:
    """The line of one size and schedule; the table may have it twice.

    Raises:
        KeyError: it has none.
    """
    for row in rows:
        if (row.size, row.read, row.write) == (size, read, write):
            return row
    raise KeyError((size, read, write))


def find_row(rows: Sequence[PaperRow], size: str | None, read: int, write: int) -> PaperRow | None:
    """`of`, or None where the table says nothing."""
    try:
        return of(rows, size or "", read, write)
    except KeyError:
        return None
