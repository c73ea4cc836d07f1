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
        usual: pairs of the call that comes most often, (pairs, llm_hidden, speech_hidden); None if there is none.
    """

    def __init__(self, graph: Graph, usual: tuple[int, int, int] | None = None) -> None:
        self._graph = graph
        if usual:
            pairs, hidden, speech = usual
            graph.expect({"hidden": (pairs, hidden), "token_embeds": (pairs, speech)})

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
