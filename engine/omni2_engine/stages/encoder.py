"""Speech encoder stage: log-mel of one window → vectors the language model reads (spec §3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.graph import Graph

Floats = NDArray[np.float32]


class SpeechEncoder:
    """Whisper encoder and projector; has no state, every window stands for itself.

    Args:
        graph: the `encoder` graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    @property
    def held(self) -> int:
        """Bytes of a device's memory beside the graph's: none."""
        return 0

    def warm_up(self) -> None:
        """Nothing: every call has the one shape that an engine's first turn has too."""

    def __call__(self, log_mel: Floats) -> Floats:
        """Encode one window.

        Args:
            log_mel: (1, mel_bins, frames) float32.

        Returns:
            (positions, hidden) float32.
        """
        speech: Floats = self._graph.run({"log_mel": log_mel})["speech"][0]
        return speech
