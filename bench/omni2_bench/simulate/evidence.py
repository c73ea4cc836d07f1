"""What others measured on GPUs of this class, and how far the model of `DeviceLimits` misses each of it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from omni2_bench.simulate.device import LIKELY, ReachedShare


@dataclass(frozen=True)
class PublishedTime:
    """One published time, seconds.

    Args:
        what: was run.
        device: on which.
        seconds: that it took.
        reading: its bytes over the data sheet's bandwidth.
        computing: its operations over the data sheet's arithmetic.
        kernels: that wait for one another, counted as a fused implementation has them.
        fitted: whether `ReachedShare` was fitted to it.
        source: of the figure.
    """

    what: str
    device: str
    seconds: float
    reading: float
    computing: float
    kernels: int
    fitted: bool
    source: str

    def predicted(self, share: ReachedShare) -> float:
        """What the model says."""
        return share.seconds(self.reading, self.computing, self.kernels)

    def miss(self, share: ReachedShare) -> float:
        """Predicted over measured, less one."""
        return self.predicted(share) / self.seconds - 1


def read_table(name: str) -> list[dict[str, str]]:
    """The lines of a table beside this file; those that begin with # are remarks."""
    text = files("omni2_bench.simulate").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def measurements() -> list[PublishedTime]:
    """All of them, those that were fitted first."""
    return [
        PublishedTime(
            row["what"],
            row["device"],
            float(row["measured"]) / 1e3,
            float(row["reading"]) / 1e3,
            float(row["computing"]) / 1e3,
            int(row["kernels"]),
            row["fitted"] == "1",
            row["source"],
        )
        for row in read_table("evidence.csv")
    ]


def root_mean_square(misses: Iterable[float]) -> float:
    """Of the misses of several measurements."""
    return float(np.sqrt(np.mean(np.square(list(misses)))))


def record(found: Sequence[PublishedTime]) -> dict[str, Any]:
    """For JSON: every measurement beside what the model says, in ms, and how far the fitted ones are missed."""
    fitted = [row.miss(LIKELY) for row in found if row.fitted]
    return {
        "rms_miss": root_mean_square(fitted),
        "worst_miss": max(fitted, key=abs),
        "measured": [
            {
                "what": row.what,
                "device": row.device,
                "source": row.source,
                "fitted": row.fitted,
                "measured_ms": 1e3 * row.seconds,
                "predicted_ms": 1e3 * row.predicted(LIKELY),
                "miss": row.miss(LIKELY),
            }
            for row in found
        ],
    }
