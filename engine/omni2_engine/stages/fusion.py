"""Fusion stage: pairs of hidden state and text token → inputs of the speech LM (spec §6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.graph import Graph

Floats = NDArray[np.float32]


class Fusion:
    """Gate fusion; has no state.

    Args:
        graph: the `fusion` graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __call__(self, hidden: Floats, token_embeds: Floats) -> Floats:
        """Fuse n pairs.

        Args:
            hidden: (n, llm_hidden) float32, after the final norm, each of the position that produced its token.
            token_embeds: (n, speech_hidden) float32, the speech LM's embeddings of those tokens.

        Returns:
            (n, speech_hidden) float32.
        """
        fused: Floats = self._graph.run({"hidden": hidden, "token_embeds": token_embeds})["fused"]
        return fused
