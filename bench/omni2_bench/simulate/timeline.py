"""The plot of `bench simulate`: schedules on a time line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

from omni2_bench.common.style import INK, LINE, PALE, STYLE
from omni2_bench.simulate.trace import CallSpan
from omni2_bench.simulate.turns import SimulatedTurn
from omni2_engine.turn.playout import playback

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS = ["#4269d0", "#e07b39", "#3ca951", "#a463f2", "#9c6b4e", "#d96ca8", "#6cc5b0", "#ff9f1c"]
RED = "#d1495b"
NOTE = "A model: computed from data-sheet figures at stated efficiencies; nothing ran on a GPU."
LEGEND = (
    "A colour is a session; a call that several share is divided among them. ▾ a chunk of sound is there. "
    "Players: a grey line waits for the first chunk, red has nothing to play.\n"
)
BAR = 0.76  # of a lane's height


@dataclass(frozen=True)
class DrawnSchedule:
    """One schedule on the time line.

    Args:
        title: what it is.
        spans: calls of its stages.
        turns: what its sessions heard.
    """

    title: str
    spans: Sequence[CallSpan]
    turns: Sequence[SimulatedTurn]


def draw_timeline(path: Path, schedules: Sequence[DrawnSchedule], seconds: float) -> None:
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
        figure.supxlabel(LEGEND + NOTE, x=0.01, ha="left", fontsize=9, color=PALE)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _draw_schedule(axes: Axes, schedule: DrawnSchedule, seconds: float) -> None:
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


def _stages(schedule: DrawnSchedule) -> list[str]:
    return list(dict.fromkeys(span.stage for span in sorted(schedule.spans, key=lambda span: span.start)))


def _sessions(schedule: DrawnSchedule) -> list[int]:
    return sorted({turn.session for turn in schedule.turns})
