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

    def llm(self, read: int) -> float:
        """From the question to R text tokens."""
        return self.prompt + read * self.text_token

    def speech(self, units: int) -> float:
        """One write."""
        return self.write + units * self.unit

    def total(self, read: int, write: int) -> float:
        """From the question to the first chunk, one stage after another."""
        return self.llm(read) + self.speech(write) + self.synthesis


@dataclass(frozen=True)
class FitTrial:
    """One line of the table, and what the constants say of its total, seconds."""

    row: PaperRow
    fitted: bool
    total: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.total / self.row.total - 1


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


def trials(rows: Sequence[PaperRow], constants: Constants) -> list[FitTrial]:
    """Every fitted and every held-out line of the table."""
    return [
        FitTrial(of(rows, SIZE, read, write), (read, write) in FITTED, constants.total(read, write))
        for read, write in (*FITTED, *HELD_OUT)
    ]


def record(rows: Sequence[PaperRow]) -> dict[str, Any]:
    """For JSON: constants in µs, lines in ms, and whether every held-out total is met within `PROMISED`.

    The other sizes have one line each, from which prompt and text token cannot be told apart: their LLM column is taken
    as it is, and what is tried is that speech LM, flow and vocoder cost them what they cost the 7B model.
    """
    constants = fit([of(rows, SIZE, read, write) for read, write in FITTED])
    found = trials(rows, constants)
    held_out = [trial for trial in found if not trial.fitted]
    others = [row for row in rows if row.size != SIZE]
    return {
        "size": SIZE,
        "constants_us": {f"us_per_{name}": 1e6 * value for name, value in asdict(constants).items()},
        "trials": [_line(trial) for trial in found],
        "worst_held_out_error": max((trial.error for trial in held_out), key=abs),
        "promised_error": PROMISED,
        "kept": all(abs(trial.error) <= PROMISED for trial in held_out),
        "other_sizes": [
            {
                "size": row.size,
                "total_ms": 1e3 * row.total,
                "predicted_ms": 1e3 * (predicted := row.llm + constants.speech(row.write) + constants.synthesis),
                "error": predicted / row.total - 1,
            }
            for row in others
        ],
    }


def _line(trial: FitTrial) -> dict[str, Any]:
    return {
        "R": trial.row.read,
        "W": trial.row.write,
        "fitted": trial.fitted,
        "total_ms": 1e3 * trial.row.total,
        "predicted_ms": 1e3 * trial.total,
        "error": trial.error,
    }
