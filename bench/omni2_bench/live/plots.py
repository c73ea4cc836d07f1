"""The plot of `bench live`: where the time to the first sound goes, and what becomes of it with more conversations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omni2_bench.common.percentiles import draw_percentiles
from omni2_bench.common.style import BLUE, GREEN, ORANGE, PALE, STYLE

from matplotlib import pyplot as plt  # isort: skip  (after `style`, which chooses the backend)
from matplotlib.axes import Axes

PARTS = {  # of the time to the first sound: label → figure and colour
    "decision": ("decision_mean", PALE),
    "server": ("server_mean", BLUE),
    "socket": ("socket_mean", ORANGE),
}


def draw(conditions: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw to a PNG file.

    Args:
        conditions: those of `live.json`.
        path: the file.
    """
    with plt.rc_context(STYLE):
        figure, (parts, sounds, gaps) = plt.subplots(
            1, 3, figsize=(12, 4), width_ratios=(2, 1, 1), layout="constrained"
        )
        _draw_parts(parts, conditions)
        _draw_load(sounds, gaps, conditions)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _draw_parts(axes: Axes, conditions: Sequence[dict[str, Any]]) -> None:
    """A bar for each silence, with and without speculation: means, which add up."""
    rows = [
        one for one in _heard(conditions) if _alone(one) and all(name in one["figures"] for name, _ in PARTS.values())
    ]
    left = np.zeros(len(rows))
    for label, (name, colour) in PARTS.items():
        widths = np.array([row["figures"][name] for row in rows])
        axes.barh(range(len(rows)), widths, left=left, color=colour, height=0.62, label=label)
        left += widths
    for row, total in enumerate(left):
        axes.text(total, row, f" {1000 * total:.0f} ms", va="center")
    names = [f"{1000 * row['silence']:.0f} ms, {'with' if row['speculate'] else 'without'}" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(title="End of speech to first sound, by silence and speculation", xlabel="s, mean")
    axes.legend(frameon=False, ncols=len(PARTS), loc="upper center", bbox_to_anchor=(0.5, -0.14))


def _draw_load(sounds: Axes, gaps: Axes, conditions: Sequence[dict[str, Any]]) -> None:
    """First sound and worst gap over the conversations at once."""
    several = [one["silence"] for one in conditions if one["conversations"] > 1]
    rows = [
        one for one in _heard(conditions) if one["speculate"] and not one["interrupts"] and one["silence"] in several
    ]
    rows.sort(key=lambda one: one["conversations"])
    loads = [one["conversations"] for one in rows]
    draw_percentiles(sounds, loads, [one["figures"] for one in rows], "first_sound")
    gaps.plot(loads, [one["figures"]["gap_max"] for one in rows], marker="o", color=GREEN)
    for axes, title in ((sounds, "First sound"), (gaps, "Worst gap")):
        axes.set(title=title, xlabel="conversations at once", ylabel="s", xticks=loads)
        axes.margins(y=0.1)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=PALE, alpha=0.3)


def _heard(conditions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in conditions if "first_sound_p50" in one["figures"]]


def _alone(condition: dict[str, Any]) -> bool:
    return condition["conversations"] == 1 and not condition["interrupts"]
