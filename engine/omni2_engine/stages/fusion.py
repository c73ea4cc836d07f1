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
        self._usual: dict[str, tuple[int, int]] = {}  # shapes of the inputs
        if usual:
            pairs, hidden, speech = usual
            self._usual = {"hidden": (pairs, hidden), "token_embeds": (pairs, speech)}
            graph.expect(self._usual)

    def warm_up(self) -> None:
        """Call it in the usual shape, so that the call is recorded before the first turn."""
        zeros = {name: np.zeros(shape, np.float32) for name, shape in self._usual.items()}
        for _ in range(2 if zeros else 0):  # the second call is recorded
            self._graph.run(zeros)

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
