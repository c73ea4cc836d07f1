"""One picture of an answer: its waveform, its mel spectrogram, and when each stage ran while it was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from omni2_bench.common.mel import HOP, mel_spectrogram, to_mel
from omni2_bench.common.style import INK, LINE, PALE, STYLE
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.metrics import TurnMetrics

Floats = NDArray[np.float32]
ROWS = {  # timeline rows from the top, each with its stages and the colour of its group
    "log-mel": (("frontend",), "#4269d0"),
    "encoder": (("encoder",), "#4269d0"),
    "prefill": (("prefill",), "#4269d0"),
    "text": (("decode",), "#4269d0"),
    "fusion": (("fusion",), "#3ca951"),
    "speech LM": (("speech_prefill", "speech_decode"), "#3ca951"),
    "flow": (("flow",), "#e07b39"),
    "vocoder": (("vocoder",), "#e07b39"),
}


def plot_answer(path: Path, pcm: Floats, sample_rate: int, chunks: Sequence[Chunk], metrics: TurnMetrics) -> None:
    """Draw an answer to a PNG file.

    Args:
        path: of the PNG.
        pcm: (n,) float32, the whole answer.
        sample_rate: Hz.
        chunks: what the turn yielded.
        metrics: of that turn.
    """
    with plt.rc_context(STYLE):
        figure, (wave, mel, timeline, playback) = plt.subplots(
            4, 1, figsize=(11, 10), height_ratios=(1, 1.6, 1.6, 1), layout=ConstrainedLayoutEngine(h_pad=0.08)
        )
        wave.sharex(mel)
        timeline.sharex(playback)
        _draw_waveform(wave, pcm, sample_rate, chunks)
        _draw_mel(mel, pcm, sample_rate, chunks)
        _draw_timeline(timeline, metrics)
        _draw_playback(playback, chunks, metrics)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _draw_waveform(axes: Axes, pcm: Floats, sample_rate: int, chunks: Sequence[Chunk]) -> None:
    seconds = max(len(pcm) / sample_rate, HOP)
    axes.plot(np.arange(len(pcm)) / sample_rate, pcm, color="#4269d0", linewidth=0.5)
    limit = 1.15 * max(float(np.abs(pcm).max(initial=0.0)), 1e-3)
    axes.set(title="Answer", ylabel="amplitude", xlim=(0, seconds), ylim=(-limit, limit))
    _mark_chunks(axes, chunks, LINE)
    for chunk in chunks:
        if chunk.duration > 0.03 * seconds:  # room for a number
            place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top"}
            axes.text((chunk.start + chunk.end) / 2, 0.97, str(chunk.index), color=PALE, fontsize=9, **place)
    axes.tick_params(labelbottom=False)


def _draw_mel(axes: Axes, pcm: Floats, sample_rate: int, chunks: Sequence[Chunk]) -> None:
    mel = mel_spectrogram(pcm, sample_rate)
    top = to_mel(sample_rate / 2)
    extent = (-HOP / 2, (mel.shape[1] - 0.5) * HOP, 0, top)
    image = axes.imshow(mel, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
    ticks = [hertz for hertz in (250, 500, 1000, 2000, 4000, 8000) if hertz <= sample_rate / 2]
    axes.set_yticks([to_mel(hertz) for hertz in ticks], [f"{hertz / 1000:g}" for hertz in ticks])
    axes.set(title="Mel spectrogram", xlabel="time in the answer (s)", ylabel="frequency (kHz)")
    axes.set_xlim(0, max(len(pcm) / sample_rate, HOP))
    _mark_chunks(axes, chunks, "#ffffff88")
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.01, 0, 0.012, 1)))  # leaves all panels one width
    bar.set_label("dB below the loudest")
    bar.set_ticks([-60, -40, -20, 0], labels=["60", "40", "20", "0"])
    bar.outline.set_visible(False)


def _draw_timeline(axes: Axes, metrics: TurnMetrics) -> None:
    """A row of bars per stage."""
    for row, (stages, colour) in enumerate(ROWS.values()):
        bars = [(span.start, span.stop - span.start) for span in metrics.spans if span.stage in stages]
        axes.broken_barh(bars, (row - 0.36, 0.72), facecolors=colour, edgecolors=colour, linewidth=0.8)
    for ready in metrics.chunk_times:
        axes.axvline(ready, color=LINE, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(ROWS)), list(ROWS))
    title = "Stages at work"
    if metrics.first_chunk is not None and metrics.rtf is not None:
        title += f": first chunk after {metrics.first_chunk * 1e3:.0f} ms, real-time factor {metrics.rtf:.2f}"
    axes.set(title=title, ylim=(len(ROWS) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelbottom=False)


def _draw_playback(axes: Axes, chunks: Sequence[Chunk], metrics: TurnMetrics) -> None:
    """Seconds of sound that are ready, chunk by chunk, and played by a player that starts when the first chunk says."""
    ready, ends = metrics.chunk_times, [chunk.end for chunk in chunks if len(chunk.pcm)]
    stop = 1.02 * max([span.stop for span in metrics.spans] + ready, default=1.0)
    if ready:
        axes.step([0, *ready, stop], [0, *ends, ends[-1]], where="post", color=INK, linewidth=1.2, label="sound ready")
        axes.plot(ready, ends, linestyle="", marker="v", color=INK, markersize=6, label="a chunk becomes ready")
        label = f"sound played, from {metrics.start_in * 1e3:.0f} ms after the first chunk on"
        axes.plot(*_played(ready, ends, metrics.start_in), color="#e07b39", linewidth=1.6, label=label)
        for time in ready:
            axes.axvline(time, color=LINE, linewidth=0.8, zorder=0)
        axes.legend(loc="upper left", frameon=False, fontsize=9)
    axes.set(xlabel="time since the question (s)", ylabel="sound (s)", xlim=(0, stop))
    axes.set_ylim(0, 1.12 * max(ends, default=1.0))


def _played(ready: Sequence[float], ends: Sequence[float], wait: float) -> tuple[list[float], list[float]]:
    """Corners (time, seconds played) of a player's line: it starts late by `wait`, and pauses where the next chunk is
    not ready yet."""
    times, sounds = [ready[0] + wait], [0.0]
    for time, end in zip(ready, ends, strict=True):
        if time > times[-1]:
            times.append(time)
            sounds.append(sounds[-1])
        times.append(times[-1] + end - sounds[-1])
        sounds.append(end)
    return times, sounds


def _mark_chunks(axes: Axes, chunks: Sequence[Chunk], colour: str) -> None:
    for chunk in chunks[1:]:
        axes.axvline(chunk.start, color=colour, linewidth=0.8)
