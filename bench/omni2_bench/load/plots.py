"""The plot of `bench serve`: the first sound over the rate, or over the turns of a single trial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omni2_bench.common.percentiles import draw_percentiles
from omni2_bench.common.style import BLUE, PALE, STYLE
from omni2_bench.load.trial import Trial

from matplotlib import pyplot as plt  # isort: skip  (after `style`, which chooses the backend)


def draw(trials: Sequence[Trial], path: Path) -> None:
    """Draw to a PNG file.

    Args:
        trials: in any order, at least one with an answer.
        path: the file.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        found = {trial.behaviour.rate: trial.figures() for trial in trials}
        heard = sorted(rate for rate, figures in found.items() if "first_sound_p50" in figures)
        if len(heard) > 1:
            draw_percentiles(axes, heard, [found[rate] for rate in heard], "first_sound")
            axes.set_xlabel("conversations that begin per second")
            axes.set_ylabel("s")
            axes.set_title("End of speech to first sound")
        else:
            times = np.sort([turn.first_sound for turn in trials[0].turns if turn.ready])
            axes.step(times, np.arange(1, len(times) + 1) / max(1, len(times)), where="post", color=BLUE)
            axes.set_xlabel("s from the end of speech")
            axes.set_title("Share of the questions that have heard a first sound")
            axes.set_ylim(0, 1.02)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=PALE, alpha=0.3)
        figure.savefig(path, dpi=150)
        plt.close(figure)
