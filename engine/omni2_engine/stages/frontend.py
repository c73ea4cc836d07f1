"""Frontend stage: a 16 kHz waveform → the log-mel spectrogram of one window (spec §2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.graph import Graph
from omni2_engine.model.config import EncoderConfig

Floats = NDArray[np.float32]


class Frontend:
    """Pads or cuts to the window and computes its log-mel spectrogram; has no state.

    Args:
        graph: the `log_mel` graph.
        config: gives the window's length.
    """

    def __init__(self, graph: Graph, config: EncoderConfig) -> None:
        self._graph = graph
        self._samples = config.samples

    def __call__(self, audio: Floats) -> Floats:
        """Compute one window.

        Args:
            audio: (n,) float32 in ±1 at 16 kHz; silence is added, or what is beyond the window cut off.

        Returns:
            (1, mel_bins, frames) float32.
        """
        window = np.zeros((1, self._samples), np.float32)
        kept = audio[: self._samples]
        window[0, : len(kept)] = kept
        log_mel: Floats = self._graph.run({"audio": window})["log_mel"]
        return log_mel
