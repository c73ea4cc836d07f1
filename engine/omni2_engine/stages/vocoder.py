"""Vocoder stage: new mel frames → the PCM that is final with them, cross-faded to what went before (spec §9, §10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base import Graph
from omni2_engine.config import VOCODER_OVERLAP_FRAMES, VocoderConfig
from omni2_kernels.audio import cross_fade

Floats = NDArray[np.float32]
# The source's random numbers for so many samples: phase (H,) uniform in ±π, and noise (H, samples) standard normal.
Draws = Callable[[int], tuple[Floats, Floats]]


@dataclass
class VocoderState:
    """What one turn's vocoder keeps between calls; made by `Vocoder.new_state`.

    Attributes:
        mel: (8, mel) last frames of the call before, (0, mel) at the beginning.
        source: (n,) replaces the head of the next call's source; the last 8·hop samples of the source before. A caller
            that has the source itself may put up to the whole of it here.
        tail: (n,) last 8·hop samples of the waveform before, not given out yet.
    """

    mel: Floats
    source: Floats
    tail: Floats


@dataclass(frozen=True)
class VocoderCall:
    """A call that has begun; made by `Vocoder.begin`.

    `mel` (mel, F) are the frames to voice, F = 0 if there are none; `phase` (H, 1) and `noise` (H, F·hop) drive them,
    `source` (1, n) replaces the head of what they give.
    """

    state: VocoderState
    mel: Floats
    phase: Floats
    noise: Floats
    source: Floats
    final: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Calls of one shape can be made together."""
        return self.mel.shape[1], self.source.shape[1]


class Vocoder:
    """HiFT, called on the new frames and the eight before them.

    Args:
        graph: the `vocoder` graph.
        config: its dimensions.
        most_at_once: turns that one call serves at most.
    """

    def __init__(self, graph: Graph, config: VocoderConfig, most_at_once: int = 1) -> None:
        self._graph = graph
        self.config = config
        self.most_at_once = most_at_once

    def new_state(self) -> VocoderState:
        """State for one turn."""
        return VocoderState(
            np.zeros((0, self.config.mel), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32)
        )

    def step(self, state: VocoderState, new_mel: Floats, draws: Draws, final: bool) -> Floats:
        """Voice new frames; see `begin`."""
        return self.finish([self.begin(state, new_mel, draws, final)])[0]

    def begin(self, state: VocoderState, new_mel: Floats, draws: Draws, final: bool) -> VocoderCall:
        """Begin a call.

        Args:
            state: moves on with `finish`, which is to come before another call of this state.
            new_mel: (frames, mel) float32, not given before; at least 8 in a turn's first call unless that is final.
            draws: the source's random numbers; called once, for all samples of the call.
            final: nothing will follow, so nothing is held back for a cross-fade.

        Raises:
            ValueError: too few frames to keep the overlap from.
        """
        mel = np.concatenate([state.mel, new_mel])
        if len(mel) < VOCODER_OVERLAP_FRAMES and not final:
            raise ValueError(f"a first call needs {VOCODER_OVERLAP_FRAMES} frames to go on from, not {len(mel)}")
        phase, noise = draws(len(mel) * self.config.hop)
        return VocoderCall(state, mel.T, phase[:, None], noise, state.source[None], final)

    def finish(self, calls: Sequence[VocoderCall]) -> list[Floats]:
        """Voice calls that have begun, those of one shape together.

        What a turn gets does not depend on which others get theirs with it.

        Returns:
            For each call (n,) float32 PCM; n = hop·(frames + 8 if this is not the first call) − 8·hop if this is not
            the final one.
        """
        alike: dict[tuple[int, int], list[int]] = {}
        for number, call in enumerate(calls):
            alike.setdefault(call.shape, []).append(number)
        silence = np.zeros(0, np.float32)
        sounds = [(silence, silence)] * len(calls)
        for (frames, _), numbers in alike.items():
            for first in range(0, len(numbers) if frames else 0, self.most_at_once):
                together = numbers[first : first + self.most_at_once]
                for number, sound in zip(together, self._run([calls[number] for number in together]), strict=True):
                    sounds[number] = sound
        return [self._output(call, *sound) for call, sound in zip(calls, sounds, strict=True)]

    def _run(self, calls: list[VocoderCall]) -> list[tuple[Floats, Floats]]:
        """Waveform and source (F·hop,) of calls of one shape, each in memory of its own."""
        outputs = self._graph.run(
            {
                "mel": np.stack([call.mel for call in calls]),
                "phase": np.stack([call.phase for call in calls]),
                "noise": np.stack([call.noise for call in calls]),
                "source_cache": np.stack([call.source for call in calls]),
            }
        )
        return [(wav.copy(), source[0].copy()) for wav, source in zip(outputs["wav"], outputs["source"], strict=True)]

    def _output(self, call: VocoderCall, wav: Floats, source: Floats) -> Floats:
        state, overlap = call.state, self.config.overlap
        if len(wav) and len(state.tail):
            head = wav[: len(state.tail)]
            cross_fade(head, state.tail, out=head)
        if call.final:
            return wav
        state.mel = call.mel.T[-VOCODER_OVERLAP_FRAMES:]
        state.source = source[-overlap:]
        state.tail = wav[-overlap:]
        return wav[:-overlap]
