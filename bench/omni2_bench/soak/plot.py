"""The plot of a soak: what the process holds, and what it does meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omni2_bench.common.style import BLUE, ORANGE, PALE, STYLE
from omni2_bench.soak.samples import HeldSample

from matplotlib import pyplot as plt  # isort: skip  (after `style`, which chooses the backend)

MIB = 2**20


def draw(samples: Sequence[HeldSample], path: Path) -> None:
    """Draw to a PNG file.

    Args:
        samples: in the order of time, at least one.
        path: the file.
    """
    minutes = [sample.seconds / 60 for sample in samples]
    with plt.rc_context(STYLE):
        figure, (memory, counts, load) = plt.subplots(3, 1, figsize=(8, 7), sharex=True, layout="constrained")
        memory.plot(minutes, [sample.resident / MIB for sample in samples], color=BLUE, label="resident")
        memory.plot(minutes, [sample.anonymous / MIB for sample in samples], color=ORANGE, label="anonymous")
        memory.set_title("Memory, MiB")
        counts.plot(minutes, [sample.threads for sample in samples], color=BLUE, label="threads")
        counts.plot(minutes, [sample.descriptors for sample in samples], color=ORANGE, label="descriptors")
        counts.set_title("Threads and descriptors")
        load.plot(minutes, [sample.sessions for sample in samples], color=BLUE, label="conversations")
        load.plot(minutes, [sample.waiting for sample in samples], color=ORANGE, label="turns without a sound yet")
        load.set_title("Load")
        load.set_xlabel("minutes")
        for axes in (memory, counts, load):
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False, ncols=2, loc="lower right")
            axes.grid(axis="y", color=PALE, alpha=0.3)
        figure.savefig(path, dpi=150)
        plt.close(figure)
