"""Speech encoder stage that computes a question and a margin, not the silence that fills the window behind it.

The encoder looks in both directions, so the silence cannot be left out: what positions know of it would be missing.
It is read from another window instead, in which other speech of nearly the same length came before the silence: keys
and values of every layer, and the output. On a CPU a few positions of the silence are computed too, the probes: what
they differ by from the other window is added to all of it. docs/less_work.md says what is lost.
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
PROBES = f"{ENCODER_TAIL}_probes.npy"
MARGIN = 50  # positions computed behind the speech: one second
DEVICE_SPEECH = (150, 250, 400, 600)  # positions of speech for which a device holds a tail; longer windows are whole
CLEAR = 25  # positions between the end of a tail's own speech and where it is read, at least


@dataclass(frozen=True)
class EncoderTail:
    """What a window of other speech left behind that speech.

    Args:
        layers: (2·layers, heads, kept, width / heads) float16, keys and values of every layer in turn at the last
            positions of the window.
        encoded: (kept, width) float16, the output of the encoder's last norm there.
        speech: (positions, output) float32, the encoder's output for the whole window.
    """

    layers: NDArray[Any]
    encoded: NDArray[Any]
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
        paths = sorted(tables.glob(f"{ENCODER_TAIL}_*_layers.npy"))
        parts = (cls._paths(tables, path.name.split("_")[2]) for path in paths)
        return [cls(*(np.asarray(map_table(path)) for path in of)) for of in parts]

    def save(self, tables: Path) -> int:
        """Write it where `load` finds it; returns its bytes."""
        arrays = (self.layers, self.encoded, self.speech)
        for path, array in zip(self._paths(tables, str(self.kept)), arrays, strict=True):
            np.save(path, array)
        return sum(array.nbytes for array in arrays)

    @staticmethod
    def _paths(tables: Path, kept: str) -> list[Path]:
        return [tables / f"{ENCODER_TAIL}_{kept}_{name}.npy" for name in ("layers", "encoded", "speech")]


def load_probes(tables: Path) -> NDArray[np.int64]:
    """The positions of the window that can be probes, (n,) ascending.

    Raises:
        EngineDirectoryError: they are missing, as in engines of before, or damaged.
    """
    return np.asarray(map_table(tables / PROBES)).astype(np.int64)


def save_probes(tables: Path, probes: NDArray[np.int64]) -> None:
    """Write them where `load_probes` finds them."""
    np.save(tables / PROBES, probes)


class TailedEncoder:
    """Whisper encoder and projector over the part of a window that holds speech; has no state.

    Where the graph bounds how many positions a call has, as plans do, some numbers of them serve: calls of each have
    one shape and can be recorded, and the tail that each reads lies in the device's memory.

    Args:
        graph: the `encoder_tail` graph.
        config: its dimensions.
        tails: of its own weights, at least one.
        probes: (n,) positions of the window, ascending; those behind what is computed are computed too, but where
            the graph bounds the positions.

    Attributes:
        held: bytes of tails in a device's memory.

    Raises:
        CapacityError: the device has no room for them.
    """

    def __init__(
        self, graph: Graph, config: EncoderConfig, tails: Sequence[EncoderTail], probes: NDArray[np.int64]
    ) -> None:
        self._graph = graph
        self._config = config
        self._probes = probes
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
        beginning = log_mel[:, :, : mel.shape[2]]
        mel[:, :, : beginning.shape[2]] = beginning
        tail = self._behind(computed)
        if self._bound:
            speech = self._run(mel, computed)
            return np.concatenate([speech, tail.speech[len(speech) :]])
        probes = self._probes[self._probes >= computed] - computed
        spread = interpolation(probes, c.context - computed)
        given: dict[str, NDArray[Any]] = {"log_mel": mel, "encoded": tail.encoded, "probes": probes, "spread": spread}
        whole: Floats = self._graph.run({**given, **_by_layer(tail.layers)})["speech"][0]
        return whole

    def warm_up(self) -> None:
        """Call it with every number of positions: kernels are compiled and the calls recorded then, not in a turn."""
        for computed in self._bound:
            mel = np.zeros((1, self._config.mel_bins, 2 * computed + 2), np.float32)
            for _ in range(2):  # the second call is recorded
                self._run(mel, computed)

    def _run(self, mel: Floats, computed: int) -> Floats:
        """The computed positions on a device, as vectors (computed / stack, hidden)."""
        outputs = self._graph.run_chain([self._bound[computed]], {"log_mel": mel}, [{}], {})
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


def interpolation(places: NDArray[np.int64], count: int) -> Floats:
    """Weights (count, places) float32 that make values at 0 … count − 1 of those at `places`, linearly between two and
    constant beyond the first and the last; without any, no weights."""
    weights = np.empty((count, len(places)), np.float32)
    for place, unit in enumerate(np.eye(len(places))):
        weights[:, place] = np.interp(np.arange(count), places, unit)
    return weights
