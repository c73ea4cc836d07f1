"""Vocoder stage: new mel frames → the PCM that is final with them, cross-faded to the call before (spec §9, §10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.graph import Graph
from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES, VocoderConfig
from omni2_kernels.audio import cross_fade

Floats = NDArray[np.float32]
# Samples → the source's random numbers: phase (H,) uniform in ±π, and noise (H, samples) standard normal.
Draws = Callable[[int], tuple[Floats, Floats]]


@dataclass
class VocoderState:
    """What one turn's vocoder keeps between calls; made by `Vocoder.new_state`.

    Attributes:
        mel: (8, mel) last frames of the call before, (0, mel) at the beginning.
        source: (n,) replaces the head of the next call's source; the last 8·hop samples of the source before. A caller
            that has the source itself may put up to the whole of it here.
        tail: (n,) last 8·hop samples of the waveform before, not returned yet.
    """

    mel: Floats
    source: Floats
    tail: Floats


class Vocoder:
    """HiFT, called on the new frames and the eight before them.

    Args:
        graph: the `vocoder` graph.
        config: its dimensions.
        usual: frames of the calls that come often, those of the call before included: of a turn's first, and of later
            ones.
    """

    def __init__(self, graph: Graph, config: VocoderConfig, usual: tuple[int, Sequence[int]] | None = None) -> None:
        self._graph = graph
        self.config = config
        self._usual = [(usual[0], 0), *((frames, config.overlap) for frames in usual[1])] if usual else []
        for frames, cached in self._usual:
            graph.expect({name: array.shape for name, array in self._silence(frames, cached).items()})

    def new_state(self) -> VocoderState:
        """State for one turn."""
        return VocoderState(
            np.zeros((0, self.config.mel), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32)
        )

    def warm_up(self) -> None:
        """Call it in the usual shapes: calls are prepared and recorded then, and not within a turn."""
        for frames, cached in self._usual:
            for _ in range(2):
                self._graph.run(self._silence(frames, cached))

    def _silence(self, frames: int, cached: int) -> dict[str, Floats]:
        """Inputs of a call."""
        c = self.config
        shapes = {
            "mel": (1, c.mel, frames),
            "phase": (1, c.harmonics + 1, 1),
            "noise": (1, c.harmonics + 1, frames * c.hop),
            "source_cache": (1, 1, cached),
        }
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    def step(self, state: VocoderState, new_mel: Floats, draws: Draws, final: bool) -> Floats:
        """New frames → sound.

        Args:
            state: moves on.
            new_mel: (frames, mel) float32, not given before; at least 8 in a turn's first call unless that is final.
            draws: the source's random numbers; called once, for all samples of the call.
            final: no frame follows, so no sample is held back for a cross-fade.

        Returns:
            (n,) float32 PCM; n = hop·(frames + 8 if this is not the first call) − 8·hop if this is not the final one.

        Raises:
            ValueError: too few frames to keep the overlap from.
        """
        mel, overlap = np.concatenate([state.mel, new_mel]), self.config.overlap
        if len(mel) < VOCODER_OVERLAP_FRAMES and not final:
            raise ValueError(f"a first call needs {VOCODER_OVERLAP_FRAMES} frames to go on from, not {len(mel)}")
        if not len(mel):
            return np.zeros(0, np.float32)
        phase, noise = draws(len(mel) * self.config.hop)
        outputs = self._graph.run(
            {
                "mel": np.ascontiguousarray(mel.T)[None],
                "phase": phase[None, :, None],
                "noise": noise[None],
                "source_cache": state.source[None, None],
            }
        )
        wav: Floats = outputs["wav"][0].copy()
        source: Floats = outputs["source"][0, 0].copy()
        if len(state.tail):
            head = wav[: len(state.tail)]
            cross_fade(head, state.tail, out=head)
        if final:
            return wav
        state.mel = mel[-VOCODER_OVERLAP_FRAMES:]
        state.source = source[-overlap:]
        state.tail = wav[-overlap:]
        return wav[:-overlap]
