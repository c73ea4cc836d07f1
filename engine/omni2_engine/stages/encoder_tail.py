"""Speech encoder stage that computes a question and a margin, not the silence that fills the window behind it.

The encoder looks in both directions, so the silence cannot be left out: what positions know of it would be missing.
It is read from another window instead, in which other speech of nearly the same length came before the silence: keys
and values of every layer, and what the projector made of the rest. docs/less_work.md says what that loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.graph import BoundGraph, Graph
from omni2_engine.model.config import EncoderConfig
from omni2_engine.model.tables import map_table

Floats = NDArray[np.float32]
ENCODER_TAIL = "encoder_tail"  # the graph's name, and its files'
MARGIN = 50  # positions computed behind the speech: one second
DEVICE_SPEECH = (150, 250, 400, 600)  # positions of speech for which a device holds a tail; longer windows are whole
CLEAR = 25  # positions between the end of a tail's own speech and where it is read, at least


@dataclass(frozen=True)
class EncoderTail:
    """What a window of other speech left behind that speech.

    Args:
        layers: (2·layers, heads, kept, width / heads) float16, keys and values of every layer in turn at the last
            positions of the window.
        speech: (positions, output) float32, the encoder's output for the whole window.
    """

    layers: NDArray[Any]
    speech: NDArray[Any]

    @property
    def kept(self) -> int:
        """Positions of `layers`."""
        return int(self.layers.shape[2])

    @classmethod
    def load(cls, tables: Path) -> list[Self]:
        """Map all that an engine's folder of tables has.

        Raises:
            EngineDirectoryError: one is damaged.
        """
        layers = sorted(tables.glob(f"{ENCODER_TAIL}_*_layers.npy"))
        pairs = ((path, path.with_name(path.name.replace("layers", "speech"))) for path in layers)
        return [cls(np.asarray(map_table(first)), np.asarray(map_table(second))) for first, second in pairs]

    def save(self, tables: Path) -> int:
        """Write it where `load` finds it; returns its bytes."""
        for name, array in (("layers", self.layers), ("speech", self.speech)):
            np.save(tables / f"{ENCODER_TAIL}_{self.kept}_{name}.npy", array)
        return self.layers.nbytes + self.speech.nbytes


class TailedEncoder:
    """Whisper encoder and projector over the part of a window that holds speech; has no state.

    Where the graph bounds how many positions a call has, as plans do, some numbers of them serve: calls of each have
    one shape and can be recorded, and the tail that each reads lies in the device's memory.

    Args:
        graph: the `encoder_tail` graph.
        config: its dimensions.
        tails: of its own weights, at least one.

    Attributes:
        held: bytes of tails in a device's memory.

    Raises:
        CapacityError: the device has no room for them.
    """

    def __init__(self, graph: Graph, config: EncoderConfig, tails: Sequence[EncoderTail]) -> None:
        self._graph = graph
        self._config = config
        self._tails = sorted(tails, key=lambda tail: tail.kept)
        self.held = 0
        device = graph.most("log_mel", 2) is not None
        self._bound = {computed: self._hold(computed) for computed in self._lengths()} if device else {}

    def __call__(self, log_mel: Floats) -> Floats:
        """Encode one window.

        Args:
            log_mel: (1, mel_bins, frames) float32; silence at its end is what has the lowest value throughout.

        Returns:
            (positions, hidden) float32; a window without such silence is computed whole.
        """
        c, computed = self._config, self._computed(log_mel)
        mel = np.zeros((1, c.mel_bins, 2 * computed + 2), np.float32)
        given = log_mel[:, :, : mel.shape[2]]
        mel[:, :, : given.shape[2]] = given
        tail = self._behind(computed)
        speech = self._run(mel, computed, tail)
        return np.concatenate([speech, tail.speech[len(speech) :]])

    def warm_up(self) -> None:
        """Call it with every number of positions: kernels are compiled and the calls recorded then, not in a turn."""
        for computed in self._bound:
            mel = np.zeros((1, self._config.mel_bins, 2 * computed + 2), np.float32)
            for _ in range(2):  # the second call is recorded
                self._run(mel, computed, self._behind(computed))

    def _run(self, mel: Floats, computed: int, tail: EncoderTail) -> Floats:
        """The computed positions, as vectors (computed / stack, hidden)."""
        if self._bound:
            outputs = self._graph.run_chain([self._bound[computed]], {"log_mel": mel}, [{}], {})
        else:
            outputs = self._graph.run({"log_mel": mel, **_by_layer(tail.layers)})
        speech: Floats = outputs["speech"][0]
        return speech

    def _lengths(self) -> list[int]:
        """Numbers of positions that a device computes, ascending: of some lengths of speech, and the whole window."""
        whole = self._config.positions * self._config.stack
        return [*(n for n in sorted(map(self._padded, DEVICE_SPEECH)) if n < whole), whole]

    def _hold(self, computed: int) -> BoundGraph:
        """The graph with what it reads behind that number of positions in the device's memory."""
        kept = max(self._config.context - computed, 1)  # of none there is no memory
        last = _by_layer(self._behind(computed).layers[:, :, -kept:])
        memory = self._graph.state({name: part.shape for name, part in last.items()})
        for name, part in last.items():
            memory.copy(memory.arrays[name], part)
            self.held += part.nbytes
        return self._graph.bind(memory.arrays)

    def _computed(self, log_mel: Floats) -> int:
        """Positions that are computed: those of the speech and a margin, in whole stacks, or the next held number."""
        heard = np.flatnonzero((log_mel[0] > log_mel.min()).any(axis=0))
        speech = -(-(int(heard[-1]) + 1) // 2) if len(heard) else 0
        computed = min(self._padded(speech), self._config.positions * self._config.stack)
        return next((length for length in self._bound if length >= computed), computed)

    def _padded(self, speech: int) -> int:
        """Positions of the speech and a margin, in whole stacks."""
        stack = self._config.stack
        return -(-(speech + MARGIN) // stack) * stack

    def _behind(self, computed: int) -> EncoderTail:
        """The tail of the longest speech that ends well before those positions do."""
        needed = self._config.context - computed
        return next((tail for tail in self._tails if tail.kept >= needed + CLEAR), self._tails[-1])


def _by_layer(layers: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A tail's `layers` as the graph's inputs."""
    return {f"tail_{index}": layers[2 * index : 2 * index + 2] for index in range(len(layers) // 2)}
