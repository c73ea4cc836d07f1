"""The plots of `bench latency`: the first chunk stacked, the cost of every chunk, and the answer on a time line."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from omni2_bench.common.statistics import starvation
from omni2_bench.common.style import INK, LINE, PALE, STYLE
from omni2_bench.latency.record import LatencyReport
from omni2_bench.latency.rounds import REFERENCE
from omni2_bench.latency.turn import TurnResult
from omni2_engine.turn.playout import playback

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

PARTS = {  # of the first chunk: label → stages and colour
    "encoder": (("frontend", "encoder"), "#1f3a93"),
    "prefill": (("prefill",), "#4269d0"),
    "text tokens": (("decode",), "#97b4f0"),
    "speech LM": (("fusion", "speech_prefill", "speech_decode"), "#3ca951"),
    "flow": (("flow",), "#e07b39"),
    "vocoder": (("vocoder",), "#f4bf8f"),
}
LANES = {
    "LLM": (("frontend", "encoder", "prefill", "decode"), "#4269d0"),
    "speech LM": (("fusion", "speech_prefill", "speech_decode"), "#3ca951"),
    "flow, vocoder": (("flow", "vocoder"), "#e07b39"),
}
COLOURS = [INK, "#4269d0", "#e07b39", "#9aaede", "#f0bd9c", "#3ca951", "#a463f2", "#9c6b4e"]
RED = "#d1495b"


def draw_all(report: LatencyReport, out: Path) -> list[Path]:
    """Draw every plot into a directory; returns the PNG files."""
    plots = {"first_chunk": draw_first_chunk, "chunk_cost": draw_chunk_cost, "timeline": draw_timeline}
    paths = []
    with plt.rc_context(STYLE):
        for name, draw in plots.items():
            paths.append(out / f"{name}.png")
            draw(report, paths[-1])
    return paths


def draw_first_chunk(report: LatencyReport, path: Path) -> None:
    """Where the time to the first chunk goes: one stacked bar per variant, medians over the rounds."""
    names = [name for name in report.names() if name == REFERENCE or name in report.plan.presets]
    figure, axes = plt.subplots(figsize=(11, 1.6 + 0.7 * len(names)), layout="constrained")
    left = np.zeros(len(names))
    for label, (stages, colour) in PARTS.items():
        widths = np.array([np.median([_before_sound(r, stages) for r in report.of(name)]) for name in names])
        axes.barh(names, widths, left=left, color=colour, height=0.62, label=label)
        left += widths
    totals = [report.rows(name)["total"].median for name in names]
    for row, total in enumerate(totals):
        faster = "" if row == 0 else f"  (×{totals[0] / total:.1f})"
        axes.text(max(total, left[row]) + 0.01 * max(totals), row, f"{total:.2f} s{faster}", va="center")
    axes.invert_yaxis()
    axes.set(title="From the waveform to the first sound", xlabel="seconds", xlim=(0, 1.14 * max(totals)))
    axes.tick_params(axis="y", length=0)
    axes.legend(ncols=len(PARTS), loc="upper center", bbox_to_anchor=(0.5, -0.28), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_chunk_cost(report: LatencyReport, path: Path) -> None:
    """Seconds per chunk against its number: all variants, and the engine's alone at their own scale."""
    figure, (everything, engines) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for name, colour in zip(report.even_names(), COLOURS, strict=False):
        costs = report.median_costs(name)
        index = np.arange(1, len(costs) + 1)
        style = {"color": colour, "linewidth": 1.6, "label": name, "marker": ".", "markersize": 5}
        runs = np.array([report.costs(result) for result in report.of(name)])
        for axes in (everything, engines):
            if axes is everything or name != REFERENCE:
                axes.plot(index, costs, **style)
                axes.fill_between(index, runs.min(axis=0), runs.max(axis=0), color=colour, alpha=0.12, linewidth=0)
    everything.set(title="Cost of a chunk", ylabel="seconds", xlabel="chunk")
    engines.set(title="The engine alone", xlabel="chunk")
    for axes in (everything, engines):
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=LINE, linewidth=0.6, alpha=0.6)
    sound = float(np.median(report.of(REFERENCE)[0].durations))
    if sound < engines.get_ylim()[1]:
        engines.axhline(sound, color=PALE, linewidth=1, linestyle="--")
        place = {"transform": engines.get_yaxis_transform(), "va": "bottom", "ha": "right"}
        engines.text(0.99, sound, f"{sound:.2f} s of sound", color=PALE, **place)
    everything.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_timeline(report: LatencyReport, path: Path) -> None:
    """The first round's answers on one time axis: stages at work, chunks as they become ready, starvation."""
    names = [name for name in report.names() if name == REFERENCE or name in report.plan.presets]
    figure, rows = plt.subplots(
        len(names), 1, figsize=(11, 0.8 + 1.7 * len(names)), sharex=True, squeeze=False, layout="constrained"
    )
    results = [report.of(name)[0] for name in names]
    for axes, name, result in zip(rows[:, 0], names, results, strict=True):
        _draw_lanes(axes, result)
        gaps = starvation(result.ready, result.durations, result.start_in)
        axes.set_title(
            f"{name}: first sound after {result.ready[0]:.1f} s, {result.seconds:.1f} s of sound after "
            f"{result.finished:.1f} s, a player that starts {result.start_in:.1f} s later starves {gaps.total:.1f} s"
        )
    rows[-1, 0].set(
        xlabel="seconds since the waveform was handed in", xlim=(0, 1.01 * max(r.finished for r in results))
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_lanes(axes: Axes, result: TurnResult) -> None:
    for lane, (stages, colour) in enumerate(LANES.values()):
        bars = [(start, stop - start) for stage, start, stop in result.spans if stage in stages]
        axes.broken_barh(bars, (lane - 0.38, 0.76), facecolors=colour, linewidth=0)
    playing, starving = playback(result.ready, result.durations, result.start_in)
    axes.broken_barh(playing, (len(LANES) - 0.38, 0.76), facecolors=PALE, linewidth=0)
    axes.broken_barh(starving, (len(LANES) - 0.38, 0.76), facecolors=RED, linewidth=0)
    axes.plot(result.ready, [len(LANES) - 0.62] * len(result.ready), "v", color=INK, markersize=4, linestyle="")
    axes.set_yticks(range(len(LANES) + 1), [*LANES, "played | starving"])
    axes.set_ylim(len(LANES) + 0.5, -0.6)
    axes.tick_params(axis="y", length=0)


def _before_sound(result: TurnResult, stages: tuple[str, ...]) -> float:
    return sum(stop - start for stage, start, stop in result.spans if stage in stages and stop <= result.ready[0])
