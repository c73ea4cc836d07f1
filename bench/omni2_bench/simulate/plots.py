"""The plots of `bench simulate`: schedules on a time line, first chunks over efficiency, and over sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from omni2_bench.common.style import INK, LINE, PALE, STYLE
from omni2_bench.simulate.sweep import ORIGINAL, OVERLAPPED, SHARED
from omni2_bench.simulate.trace import Span
from omni2_bench.simulate.turns import Turn
from omni2_engine.playout import playback

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

COLOURS = ["#4269d0", "#e07b39", "#3ca951", "#a463f2", "#9c6b4e", "#d96ca8", "#6cc5b0", "#ff9f1c"]
RED = "#d1495b"
NOTE = "A model: computed from data-sheet figures at stated efficiencies; nothing ran on a GPU."
LEGEND = (
    "A colour is a session; a call that several share is divided among them. ▾ a chunk of sound is there. "
    "Players: a grey line waits for the first chunk, red has nothing to play.\n"
)
BAR = 0.76  # of a lane's height


@dataclass(frozen=True)
class Lanes:
    """One schedule on the time line.

    Args:
        title: what it is.
        spans: calls of its stages.
        turns: what its sessions heard.
    """

    title: str
    spans: Sequence[Span]
    turns: Sequence[Turn]


def draw_timeline(path: Path, schedules: Sequence[Lanes], seconds: float) -> None:
    """Draw schedules above one another on one time axis: a lane per stage and one per player, a colour per session.

    Args:
        path: of the PNG file.
        schedules: from the top.
        seconds: of the time axis.
    """
    heights = [len(_stages(schedule)) + len(_sessions(schedule)) + 1 for schedule in schedules]
    with plt.rc_context(STYLE):
        figure, rows = plt.subplots(
            len(schedules),
            1,
            figsize=(12, 1.2 + 0.36 * sum(heights)),
            height_ratios=heights,
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        for axes, schedule in zip(rows[:, 0], schedules, strict=True):
            _draw_schedule(axes, schedule, seconds)
        rows[-1, 0].set(xlabel="seconds", xlim=(0, seconds))
        _finish(figure, path, LEGEND)


def _draw_schedule(axes: Axes, schedule: Lanes, seconds: float) -> None:
    stages, sessions = _stages(schedule), _sessions(schedule)
    bars: dict[tuple[int, float, float], list[tuple[float, float]]] = {}  # of one colour and height, drawn at once
    for span in schedule.spans:
        share = BAR / len(span.sessions)  # a call's sessions above one another
        for place, session in enumerate(sorted(span.sessions)):
            bottom = stages.index(span.stage) - BAR / 2 + place * share
            key = (sessions.index(session), bottom, share)
            bars.setdefault(key, []).append((span.start, span.stop - span.start))
    for (session, bottom, share), stretches in bars.items():
        colour = COLOURS[session % len(COLOURS)]  # of the edges too: the shortest calls are narrower than a pixel
        axes.broken_barh(stretches, (bottom, share), facecolors=colour, edgecolors=colour, linewidth=0.4)
    for turn in schedule.turns:
        lane = len(stages) + sessions.index(turn.session)
        playing, starving = playback(turn.ready, turn.durations)
        colour = COLOURS[sessions.index(turn.session) % len(COLOURS)]
        where = (lane - BAR / 2, BAR)
        axes.broken_barh([(turn.asked, turn.first_chunk)], (lane - 0.06, 0.12), facecolors=PALE, linewidth=0)
        axes.broken_barh(playing, where, facecolors=colour, alpha=0.45, linewidth=0)
        axes.broken_barh(starving, where, facecolors=RED, linewidth=0)
        ready = [time for time in turn.ready if time <= seconds]
        axes.plot(ready, [lane - 0.52] * len(ready), "v", color=INK, markersize=4, linestyle="", zorder=3)
    names = ["player"] if len(sessions) == 1 else [f"player {number}" for number in range(1, len(sessions) + 1)]
    axes.set_yticks(range(len(stages) + len(sessions)), [*stages, *names])
    axes.set_ylim(len(stages) + len(sessions) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.axhline(len(stages) - 0.5, color=LINE, linewidth=0.8, zorder=0)
    axes.set_title(schedule.title)


def _stages(schedule: Lanes) -> list[str]:
    return list(dict.fromkeys(span.stage for span in sorted(schedule.spans, key=lambda span: span.start)))


def _sessions(schedule: Lanes) -> list[int]:
    return sorted({turn.session for turn in schedule.turns})


def draw_efficiency(path: Path, curves: Sequence[dict[str, Any]], goals: dict[str, float]) -> None:
    """Draw the first chunk over the share of the device's limits that is reached.

    Args:
        path: of the PNG file.
        curves: each with `label`, `efficiency` (shares) and `first_chunk_ms`.
        goals: label → milliseconds, drawn across.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(10, 5.4), layout="constrained")
        for curve, colour in zip(curves, COLOURS, strict=False):
            shares = [100 * share for share in curve["efficiency"]]
            axes.plot(shares, curve["first_chunk_ms"], color=colour, label=curve["label"])
        for label, goal in goals.items():
            axes.axhline(goal, color=RED, linewidth=1, linestyle=":")
            place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "bottom", "ha": "left"}
            axes.text(0.005, goal, label, color=RED, **place)
        axes.set(xscale="log", yscale="log", xlabel="share of memory bandwidth and of arithmetic that is reached (%)")
        axes.set(ylabel="first chunk (ms)", title="First chunk of one session")
        _label(axes.xaxis, (2, 5, 10, 20, 50, 100))
        _label(axes.yaxis, (20, 50, 100, 200, 500, 1000, 2000, 5000))
        axes.grid(color=LINE, linewidth=0.6, alpha=0.6)
        axes.legend(frameon=False, loc="upper right")
        _finish(figure, path)


def draw_sessions(path: Path, cells: Sequence[dict[str, Any]]) -> None:
    """Draw first chunk and continuity over the number of sessions, a colour per size.

    Args:
        path: of the PNG file.
        cells: of the record's `sessions`; see `omni2_bench.simulate.sweep`.
    """
    sizes = list(dict.fromkeys(cell["size"] for cell in cells))
    schedules = {OVERLAPPED: "-", SHARED: "--", ORIGINAL: ":"}
    with plt.rc_context(STYLE):
        figure, (first, even) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
        for schedule, line in schedules.items():
            for size, colour in zip(sizes, COLOURS, strict=False):
                found = [cell for cell in cells if cell["size"] == size and cell["schedule"] == schedule]
                if found:
                    style: dict[str, Any] = {"color": colour, "linestyle": line, "marker": ".", "markersize": 5}
                    counts = [cell["sessions"] for cell in found]
                    style["label"] = size if schedule == OVERLAPPED else None
                    first.plot(counts, [1e3 * cell["first_chunk_p90"] for cell in found], **style)
                    even.plot(counts, [100 * cell["continuity"] for cell in found], **style)
        for schedule, line in schedules.items():
            first.plot([], [], color=INK, linestyle=line, label=schedule)
        first.set(yscale="log", ylabel="first chunk, 90th percentile (ms)", title="First chunk")
        even.set(ylabel="turns without an audible gap (%)", ylim=(-3, 103), title="Continuity")
        counts = sorted({cell["sessions"] for cell in cells})
        for axes in (first, even):
            axes.set(xscale="log", xlabel="sessions")
            _label(axes.xaxis, counts)
            axes.grid(color=LINE, linewidth=0.6, alpha=0.6)
        _label(first.yaxis, (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000))
        first.legend(frameon=False, fontsize=9)
        _finish(figure, path)


def _label(axis: Axis, ticks: Sequence[int]) -> None:
    """These ticks and no others."""
    low, high = axis.get_view_interval()
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(shown, [str(tick) for tick in shown])
    axis.set_ticks([], minor=True)


def _finish(figure: Figure, path: Path, legend: str = "") -> None:
    figure.supxlabel(legend + NOTE, x=0.01, ha="left", fontsize=9, color=PALE)
    figure.savefig(path, dpi=110)
    plt.close(figure)
