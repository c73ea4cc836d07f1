"""How all plots look. Importing it chooses matplotlib's backend that needs no display."""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("Agg")

BLUE, ORANGE, GREEN = "#4269d0", "#e07b39", "#3ca951"
INK, PALE, LINE = "#20242c", "#8a92a0", "#c9ced8"
STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
}
