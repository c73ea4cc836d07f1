"""The original's stage times as five constants, fitted on three lines of the paper's Table 6 and tried on the others.

One constant for flow and vocoder: between 5 and 20 units their time is that of some thousand small kernels after one
another, however many units there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from omni2_bench.simulate.paper import PaperRow, of
from omni2_engine.errors import SettingError

SIZE = "7B"  # the one size of which the table has several schedules
FITTED = ((1, 5), (3, 10), (5, 20))  # (R, W) the constants come from
HELD_OUT = ((2, 10), (3, 15), (4, 15))  # (R, W) they are tried on
PROMISED = 0.015  # share of its total by which a held-out line may be missed


@dataclass(frozen=True)
class Constants:
    """Seconds the original takes.

    Args:
        prompt: encoder and prefill, without the first text token.
        text_token: one token of the language model.
        write: the speech LM's part that does not depend on how many units it writes.
        unit: one speech unit.
        synthesis: one call of flow and vocoder.
    """

    prompt: float
    text_token: float
    write: float
    unit: float
    synthesis: float

    def speech(self, units: int) -> float:
        """One write."""
        return self.write + units * self.unit

    def total(self, read: int, write: int) -> float:
        """From the question to the first chunk, one stage after another."""
        return self.prompt + read * self.text_token + self.speech(write) + self.synthesis


def fit(rows: Sequence[PaperRow]) -> Constants:
    """Least squares, column by column.

    Args:
        rows: of one size, two different R and two different W at least.

    Raises:
        SettingError: too few of them.
    """
    if min(len({row.read for row in rows}), len({row.write for row in rows})) < 2:
        raise SettingError("a line needs two points", "give rows of two different R and W")
    text_token, prompt = np.polyfit([row.read for row in rows], [row.llm for row in rows], 1)
    unit, write = np.polyfit([row.write for row in rows], [row.speech for row in rows], 1)
    synthesis = np.mean([row.synthesis for row in rows])
    return Constants(*(float(value) for value in (prompt, text_token, write, unit, synthesis)))


def of_table(rows: Sequence[PaperRow]) -> Constants:
    """Fitted to the lines of `FITTED`."""
    return fit([of(rows, SIZE, read, write) for read, write in FITTED])


def record(rows: Sequence[PaperRow]) -> dict[str, Any]:
    """For JSON: constants in µs, lines in ms, and whether every held-out total is met within `PROMISED`.

    The other sizes have one line each, from which prompt and text token cannot be told apart: their LLM column is taken
    as it is, and what is tried is that speech LM, flow and vocoder cost them what they cost the 7B model.
    """
    constants = of_table(rows)
    tried = {(read, write): constants.total(read, write) for read, write in (*FITTED, *HELD_OUT)}
    lines = [_line(of(rows, SIZE, *schedule), total, schedule in FITTED) for schedule, total in tried.items()]
    worst = max((line["error"] for line in lines if not line["fitted"]), key=abs)
    others = [row for row in rows if row.size != SIZE]
    return {
        "size": SIZE,
        "constants_us": {f"us_per_{name}": 1e6 * value for name, value in asdict(constants).items()},
        "trials": lines,
        "worst_held_out_error": worst,
        "promised_error": PROMISED,
        "kept": abs(worst) <= PROMISED,
        "other_sizes": [
            _line(row, row.llm + constants.speech(row.write) + constants.synthesis, False) for row in others
        ],
    }


def _line(row: PaperRow, total: float, fitted: bool) -> dict[str, Any]:
    return {
        "size": row.size,
        "R": row.read,
        "W": row.write,
        "fitted": fitted,
        "total_ms": 1e3 * row.total,
        "predicted_ms": 1e3 * total,
        "error": total / row.total - 1,
    }
