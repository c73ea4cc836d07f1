"""Speech decoder: units → mel → sound, as they come; flow and vocoder with one state between them (spec §10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.backend import Backend
from omni2_engine.backends.base.graph import Graph
from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES, FlowEncoderConfig, ModelConfig, VocoderConfig
from omni2_engine.model.manifest import EngineDirectory
from omni2_engine.model.tables import map_table
from omni2_engine.sampling import DrawKey, Stream, normal, uniform
from omni2_engine.settings.tuning import TURN
from omni2_engine.stages.flow import LEFT_CONTEXT, Flow, FlowState
from omni2_engine.stages.flow_solver import FlowSolver
from omni2_engine.stages.vocoder import Vocoder, VocoderState

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
        """See `fewest_units`."""
        return fewest_units(self.flow.units_config)

    def warm_up(self) -> None:
        """Call flow and vocoder in the shapes that calls have, so that none is prepared within a turn."""
        self.flow.warm_up()
        self.vocoder.warm_up()

    def new_state(self, speaker: Floats, left_context: float | None = None) -> SpeechState:
        """State for one turn in the voice of `speaker` (1, mel), see `Flow.speaker_features`, `Flow.new_state`."""
        return SpeechState(self.flow.new_state(speaker, left_context=left_context), self.vocoder.new_state())

    def reset(self, state: SpeechState, speaker: Floats) -> None:
        """Begin another turn with a state's memory, in the voice of `speaker` (1, mel)."""
        self.flow.reset(state.flow)
        state.flow.speaker = speaker
        state.vocoder = self.vocoder.new_state()
        state.calls = 0

    def run_flow(self, state: SpeechState, units: list[int], final: bool) -> Floats:
        """New units → mel (frames, mel) float32 not returned before.

        Args:
            state: its flow moves on; its vocoder may run meanwhile.
            units: ids below the flow's table size; at least `fewest_units` unless final.
            final: no unit follows, so the look-ahead is computed too.
        """
        return self.flow.step(state.flow, units, final).new_mel

    def run_vocoder(self, state: SpeechState, mel: Floats, final: bool, seed: int, turn: int) -> Floats:
        """Mel of `run_flow` → (n,) float32 at the vocoder's rate; n = 0 where there is no frame and no tail.

        Args:
            state: its vocoder moves on; its flow may run meanwhile.
            mel: (frames, mel) float32, in the order of the flow's calls.
            final: no frame follows, so the tail is returned too.
            seed, turn: name the source's random draws.
        """
        if not len(mel) and not (final and state.calls):  # the final call returns at least the tail
            return np.zeros(0, np.float32)
        sound = self.vocoder.step(state.vocoder, mel, self.draws(seed, turn, state.calls), final)
        state.calls += 1
        return sound

    def draws(self, seed: int, turn: int, call: int) -> Draws:
        """The source's random draws of one vocoder call (spec §9), keyed, so that nothing but the seed decides them."""
        sines = self.config.harmonics + 1

        def draw(samples: int) -> tuple[Floats, Floats]:
            phase = uniform(-np.pi, np.pi, (sines,), DrawKey(seed, Stream.VOCODER_PHASE, turn), call)
            return phase, normal((sines, samples), DrawKey(seed, Stream.VOCODER_NOISE, turn), call)

        return draw


def load_decoder(
    directory: EngineDirectory,
    backend: Backend,
    left_context: float = LEFT_CONTEXT,
    solver: FlowSolver = FlowSolver(),  # noqa: B008 (frozen)
    sessions: int = 1,
) -> SpeechDecoder:
    """Flow and vocoder of an engine directory.

    Args:
        directory: holds them.
        backend: runs them.
        left_context, solver, sessions: see `Flow`.

    Raises:
        EngineDirectoryError, BackendError: see `Backend.load`.
    """

    def load(stage: str) -> Graph:
        return backend.open(directory, stage)

    first = [load(stage) for stage in ("first_flow_encoder", "first_flow_step") if backend.has(directory, stage)]
    config, noise = directory.manifest.model, map_table(directory.path / "tables" / "noise.npy")
    flow = Flow(
        load("flow_encoder"),
        load("flow_step"),
        load("flow_conditions"),
        config.flow_encoder,
        config.estimator,
        np.asarray(noise, np.float32),
        left_context,
        solver,
        (first[0], first[1]) if len(first) == 2 else None,
        sessions,
    )
    usual = usual_frames(config) if backend.device_memory() else None  # the CPU prepares nothing by shape
    return SpeechDecoder(flow, Vocoder(load("vocoder"), config.vocoder, usual), config.vocoder)


def usual_frames(config: ModelConfig) -> tuple[int, list[int]]:
    """Frames of the vocoder's calls in a turn, see `ChunkSchedule`: of the first, and of all but the last of the
    others."""
    c = config.flow_encoder
    units = max(config.write, fewest_units(c))
    later = [c.ratio * units * factor + VOCODER_OVERLAP_FRAMES for factor in TURN.growth]
    return c.ratio * (units - c.lookahead), later


def fewest_units(c: FlowEncoderConfig) -> int:
    """Units that a call needs to return sound: the look-ahead, the vocoder's overlap, and one more (8 as released, spec
    §10)."""
    return c.lookahead + -(-VOCODER_OVERLAP_FRAMES // c.ratio) + 1
