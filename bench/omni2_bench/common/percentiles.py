"""Median and 95th percentile of a figure over a load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from omni2_bench.common.style import BLUE, ORANGE


def draw_percentiles(axes: Axes, loads: Sequence[float], figures: Sequence[Mapping[str, float]], name: str) -> None:
    """Draw both as lines, with a legend.

    Args:
        axes: to draw on.
        loads: in rising order.
        figures: at each load, `NAME_p50` and `NAME_p95` among them.
        name: of the figure.
    """
    for point, colour in (("p50", BLUE), ("p95", ORANGE)):
        values = [found[f"{name}_{point}"] for found in figures]
        axes.plot(loads, values, marker="o", color=colour, label=point)
    axes.legend(frameon=False)
