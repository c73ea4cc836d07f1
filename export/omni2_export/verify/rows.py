"""Comparisons as rows: which array, how far off it is and may be; quantised stages are judged by SNR."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

PERFECT = 999.0  # dB reported where nothing differs


class Measure(StrEnum):
    """What a row's number is."""

    ABSOLUTE = "max |Δ|"
    RELATIVE = "max |Δ| / std"
    DIFFERENT = "items wrong"
    SNR = "SNR in dB"
    MATCH = "agreement"  # for information; never a miss


@dataclass(frozen=True)
class Row:
    """One compared array.

    Args:
        source: file or module the array is of.
        stage: what made it.
        array: its name.
        measure: what `value` is.
        value: NaN where shapes differ or a number is not finite.
        limit: largest value allowed, for SNR the least; None for `Measure.MATCH`.
    """

    source: str
    stage: str
    array: str
    measure: Measure
    value: float
    limit: float | None

    @property
    def passed(self) -> bool:
        """Whether the limit is kept; NaN keeps none."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.measure is Measure.SNR else self.value <= self.limit


@dataclass
class VerifyReport:
    """All rows, and by file the arrays that were not compared."""

    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    @property
    def judged(self) -> list[Row]:
        """Rows that can miss."""
        return [row for row in self.rows if row.limit is not None]

    @property
    def misses(self) -> list[Row]:
        """Rows that did."""
        return [row for row in self.rows if not row.passed]

    @property
    def passed(self) -> bool:
        """Whether something was compared and nothing missed."""
        return bool(self.judged) and not self.misses


class Comparison:
    """Makes rows.

    Args:
        report: where they go.
        floors: SNR floor in dB of every stage that is quantised (`build.precision.snr_floors`).
        unscored: stages whose head leaves tokens out (`build.precision.unscored_stages`): logits of minus infinity are
            not compared there.
    """

    def __init__(self, report: VerifyReport, floors: Mapping[str, float], unscored: Collection[str] = ()) -> None:
        self.report = report
        self.floors = dict(floors)
        self.unscored = frozenset(unscored)

    def quantised(self, stages: Sequence[str]) -> bool:
        """Whether one of the stages is."""
        return any(stage in self.floors for stage in stages)

    def close(
        self,
        source: str,
        array: str,
        stages: Sequence[str],
        found: ArrayLike,
        expected: ArrayLike,
        *,
        absolute: float | None = None,
        relative: float | None = None,
    ) -> None:
        """Add a row of numbers; see `judge`."""
        self.report.rows.append(
            self.judge(source, array, stages, found, expected, absolute=absolute, relative=relative)
        )

    def judge(
        self,
        source: str,
        array: str,
        stages: Sequence[str],
        found: ArrayLike,
        expected: ArrayLike,
        *,
        absolute: float | None = None,
        relative: float | None = None,
    ) -> Row:
        """Compare numbers; one of the two limits is given, and holds unless a stage is quantised.

        Args:
            source, array: what the row is called.
            stages: all that had a part in it, the one that made it first.
            absolute: limit of the largest difference.
            relative: the same as a share of the expected array's standard deviation.
        """
        ours, theirs = np.asarray(found, np.float64), np.asarray(expected, np.float64)
        if ours.shape == theirs.shape and not self.unscored.isdisjoint(stages):
            scored = ours != -np.inf
            ours, theirs = ours[scored], theirs[scored]
        if self.quantised(stages):
            measure = Measure.SNR
            limit = _together([self.floors[stage] for stage in stages if stage in self.floors])
        elif absolute is not None:
            measure, limit = Measure.ABSOLUTE, absolute
        else:
            assert relative is not None
            measure, limit = Measure.RELATIVE, relative
        value = _measure(measure, ours, theirs) if ours.shape == theirs.shape else np.nan
        return Row(source, stages[0], array, measure, value, limit)

    def same(self, source: str, array: str, stages: Sequence[str], found: Any, expected: Any) -> None:
        """Compare ids, counts or text, which are identical or wrong; behind a quantised stage they are only told."""
        ours, theirs = _items(found), _items(expected)
        agree = sum(a == b for a, b in zip(ours, theirs, strict=False))
        longest = max(len(ours), len(theirs))
        if self.quantised(stages):
            row = Row(source, stages[0], array, Measure.MATCH, agree / longest if longest else 1.0, None)
        else:
            row = Row(source, stages[0], array, Measure.DIFFERENT, float(longest - agree), 0.0)
        self.report.rows.append(row)


def worst(rows: Sequence[Row]) -> Row:
    """The row furthest off, of rows of one measure."""

    def badness(row: Row) -> float:
        if np.isnan(row.value):
            return float("inf")
        return -row.value if row.measure is Measure.SNR else row.value

    return max(rows, key=badness)


def _together(floors: Sequence[float]) -> float:
    """The floor behind several quantised stages: the powers of their errors add up."""
    return -10 * float(np.log10(sum(10 ** (-floor / 10) for floor in floors)))


def snr(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Power of the expected array about its mean over that of the error, in dB."""
    noise = float(np.square(found - expected).sum())
    signal = float(np.square(expected - expected.mean()).sum())
    if noise == 0:
        return PERFECT
    return 10 * float(np.log10(signal / noise)) if signal > 0 else -PERFECT


def _measure(measure: Measure, found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    if found.size == 0:
        return PERFECT if measure is Measure.SNR else 0.0
    if not np.isfinite(found).all():
        return float("nan")
    if measure is Measure.SNR:
        return snr(found, expected)
    worst = float(np.abs(found - expected).max())
    if measure is Measure.ABSOLUTE or worst == 0:
        return worst
    spread = float(expected.std())
    return worst / spread if spread else float("inf")


def _items(value: Any) -> Sequence[Any]:
    """Characters of a text, numbers of anything else."""
    array = np.asarray(value)
    return str(array.item()) if array.dtype.kind == "U" else array.reshape(-1).tolist()
