"""Speech decoder: units → mel → sound, as they come; flow and vocoder with one state between them (spec §10).

Either's call is begun by each turn for itself, then finished for several at once where that saves time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base import Backend, Graph
from omni2_engine.config import VOCODER_OVERLAP_FRAMES, VocoderConfig
from omni2_engine.manifest import EngineDirectory
from omni2_engine.sampling import DrawKey, Stream, normal, uniform
from omni2_engine.stages.flow import LEFT_CONTEXT, Flow, FlowCall, FlowState
from omni2_engine.stages.vocoder import Vocoder, VocoderCall, VocoderState
from omni2_engine.tables import map_table

MOST_VOICED = 8  # turns in one call of the vocoder: with more, whoever is in need waits longer than sharing saves
Floats = NDArray[np.float32]
Draws = Callable[[int], tuple[Floats, Floats]]  # samples → (phase (H,), noise (H, samples))


@dataclass
class SpeechState:
    """State of one turn's sound; `calls` counts the vocoder's, for its random draws."""

    flow: FlowState
    vocoder: VocoderState
    calls: int = 0


@dataclass(frozen=True)
class SpeechDecoder:
    """Flow and vocoder stages together."""

    flow: Flow
    vocoder: Vocoder
    config: VocoderConfig

    @property
    def fewest_units(self) -> int:
        """Units a call needs to give anything out: look-ahead, the overlap held back, and one to voice (8 as released,
        spec §10)."""
        c = self.flow.units_config
        return c.lookahead + -(-VOCODER_OVERLAP_FRAMES // c.ratio) + 1

    def new_state(self, speaker: Floats, left_context: float | None = None) -> SpeechState:
        """State for one turn in the voice of `speaker` (1, mel), see `Flow.speaker_features`, `Flow.new_state`."""
        return SpeechState(self.flow.new_state(speaker, left_context=left_context), self.vocoder.new_state())

    def reset(self, state: SpeechState, speaker: Floats) -> None:
        """Begin another turn with a state's memory, in the voice of `speaker` (1, mel)."""
        self.flow.reset(state.flow)
        state.flow.speaker = speaker
        state.vocoder = self.vocoder.new_state()
        state.calls = 0

    def render(self, state: SpeechState, units: list[int], final: bool) -> Floats:
        """The flow's part for one turn: new units → mel (frames, mel) float32 not given out before; see
        `begin_mel`."""
        return self.finish_mel([self.begin_mel(state, units, final)])[0]

    def begin_mel(self, state: SpeechState, units: list[int], final: bool) -> FlowCall:
        """Begin a call of the flow.

        Args:
            state: its flow moves on with `finish_mel`, which is to come before another call of this state.
            units: ids below the flow's table size; at least `fewest_units` unless final.
            final: nothing follows: the look-ahead is rendered too.
        """
        return self.flow.begin(state.flow, units, final)

    def finish_mel(self, calls: Sequence[FlowCall]) -> list[Floats]:
        """Mel (frames, mel) float32 of calls of several turns, not given out before."""
        return [output.new_mel for output in self.flow.finish(calls)]

    def voice(self, state: SpeechState, mel: Floats, final: bool, seed: int, turn: int) -> Floats:
        """The vocoder's part for one turn: mel of `render` → (n,) float32 at its rate, n = 0 where nothing is to be
        voiced; see `begin_sound`."""
        return self.finish_sound([self.begin_sound(state, mel, final, seed, turn)])[0]

    def begin_sound(self, state: SpeechState, mel: Floats, final: bool, seed: int, turn: int) -> VocoderCall | None:
        """Begin a call of the vocoder; None if nothing is to be voiced.

        Args:
            state: its vocoder moves on with `finish_sound`, which is to come before another call of this state; another
                call's flow may run meanwhile.
            mel: (frames, mel) float32, in the order it was rendered.
            final: nothing follows: the tail is voiced too.
            seed, turn: name the source's random draws.
        """
        if not len(mel) and not (final and state.calls):  # the final call gives out the held-back tail at least
            return None
        call = self.vocoder.begin(state.vocoder, mel, self.draws(seed, turn, state.calls), final)
        state.calls += 1
        return call

    def finish_sound(self, calls: Sequence[VocoderCall | None]) -> list[Floats]:
        """Sound (n,) float32 of calls of several turns."""
        sounds = iter(self.vocoder.finish([call for call in calls if call is not None]))
        return [np.zeros(0, np.float32) if call is None else next(sounds) for call in calls]

    def draws(self, seed: int, turn: int, call: int) -> Draws:
        """The source's random draws of one vocoder call (spec §9), keyed, so that nothing but the seed decides them."""
        sines = self.config.harmonics + 1

        def draw(samples: int) -> tuple[Floats, Floats]:
            phase = uniform(-np.pi, np.pi, (sines,), DrawKey(seed, Stream.VOCODER_PHASE, turn), call)
            return phase, normal((sines, samples), DrawKey(seed, Stream.VOCODER_NOISE, turn), call)

        return draw


def load_decoder(
    directory: EngineDirectory, backend: Backend, left_context: float = LEFT_CONTEXT, sessions: int = 1
) -> SpeechDecoder:
    """Flow and vocoder of an engine directory.

    Args:
        directory: holds them.
        backend: runs them.
        left_context: see `Flow`.
        sessions: turns that share calls at most, where that saves the backend time. A quantised flow, whose activations
            have one scale per call, is called for each by itself.

    Raises:
        EngineDirectoryError, BackendError: see `Backend.load`.
    """

    def load(stage: str) -> Graph:
        return backend.open(directory, stage)

    config, noise = directory.manifest.model, map_table(directory.path / "tables" / "noise.npy")
    together = sessions if backend.shares_decoder_calls else 1
    shares_flow = together > 1 and directory.graph("flow_step_shared").is_file()
    flow = Flow(
        load("flow_encoder"),
        load("flow_step"),
        load("flow_conditions"),
        config.flow_encoder,
        config.estimator,
        np.asarray(noise, np.float32),
        left_context,
        load("flow_step_shared") if shares_flow else None,
    )
    vocoder = Vocoder(load("vocoder"), config.vocoder, min(together, MOST_VOICED))
    return SpeechDecoder(flow, vocoder, config.vocoder)
