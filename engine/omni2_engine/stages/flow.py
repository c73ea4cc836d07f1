"""Flow-matching stage: speech units → mel frames, computing only the block that is not final yet (spec §8, §11).

Attention looks at whole blocks of two seconds. A block that is complete with its look-ahead does not change any more:
its keys, values and convolution contexts stay in the state, per solver step, and the next call starts behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.graph import Graph
from omni2_engine.model.config import EstimatorConfig, FlowEncoderConfig
from omni2_engine.settings.tuning import MEMORY
from omni2_engine.stages.flow_first import FirstBlock
from omni2_engine.stages.flow_solver import FlowSolver
from omni2_engine.stages.flow_window import BlockWindow, block_mask
from omni2_engine.stages.graph_state import GraphState, cache_bytes, cache_positions

Floats = NDArray[np.float32]
WORKING_BLOCKS = 3  # the block at work, the one its newest frames reach into, and one so that two lie side by side
LEFT_CONTEXT = 30.0  # seconds of sound that the solver sees by default
FEWEST_FRAMES = 64  # of a padded call; a longer one has whole blocks
FEWEST_SHOWN = 128  # cache positions of a padded call; each further number is twice as many


@dataclass
class FlowState:
    """State of one turn's flow; made by `Flow.new_state`.

    `units` (N,) are all units of the turn. `done` of them lie in finished blocks, and the mel frames of `emitted` of
    them were returned already.
    """

    speaker: Floats
    noise: Floats
    encoder: GraphState
    steps: list[GraphState]
    window: BlockWindow
    units: list[int] = field(default_factory=list)
    done: int = 0
    emitted: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of caches and contexts; their memory is only taken as they fill."""
        return sum(part.nbytes for part in (self.encoder, *self.steps))


@dataclass(frozen=True)
class FlowOutput:
    """Mel frames of one call: `mel` (t, mel) float32 from frame `start` of the turn on. The last `new` frames were not
    returned before."""

    mel: Floats
    start: int
    new: int

    @property
    def new_mel(self) -> Floats:
        """(new, mel) float32."""
        return self.mel[len(self.mel) - self.new :]


class Flow:
    """Flow encoder and solver.

    Args:
        encoder: the `flow_encoder` graph.
        step: the `flow_step` graph.
        conditions: the `flow_conditions` graph.
        encoder_config, config: their dimensions.
        noise: (frames, mel) float32, the solver's fixed start (spec §8.2).
        left_context: seconds of sound the solver's attention sees, the block at work included, rounded up to blocks. A
            turn as long as that is computed exactly; beyond it the oldest blocks are dropped. A plan's caches may hold
            less.
        solver: at which times velocities are computed, and what is made of them.
        first: the `first_flow_encoder` and `first_flow_step` graphs, which compute a turn's first units with fewer and
            smaller kernels; None where the engine has none.
        sessions: turns that are usually answered at once.
    """

    def __init__(
        self,
        encoder: Graph,
        step: Graph,
        conditions: Graph,
        encoder_config: FlowEncoderConfig,
        config: EstimatorConfig,
        noise: Floats,
        left_context: float = LEFT_CONTEXT,
        solver: FlowSolver = FlowSolver(),  # noqa: B008 (frozen)
        first: tuple[Graph, Graph] | None = None,
        sessions: int = 1,
    ) -> None:
        self._encoder = encoder
        self._step = step
        self._conditions = conditions
        self.units_config = encoder_config
        self.config = config
        self.noise = noise
        self.left_context = min(left_context, self._most_context())
        self.solver = solver
        self._times = solver.times()[:-1]
        silent = np.ones((1, config.speaker), np.float32)
        shifts = conditions.run({"t": self._times, "embedding": silent})["shifts"]
        self._each = [{"shifts": row, "move": move} for row, move in zip(shifts, solver.moves(), strict=True)]
        self._first = FirstBlock(*first, encoder_config, self._each) if first else None
        step.expect_chains(sessions * len(self._padded_shapes()))

    def _most_context(self) -> float:
        """Seconds that the solver's caches hold beside the blocks at work, where the graph fixes how long they are."""
        c, positions = self.units_config, cache_positions(self._step)
        if positions is None:
            return math.inf
        return (positions // c.block_frames - WORKING_BLOCKS + 1) * c.block_units / c.unit_rate

    def speaker_features(self, embedding: Floats) -> Floats:
        """Project a voice: embedding (speaker,) float32 → (1, mel) float32 (spec §7)."""
        inputs = {"t": self._times[:1], "embedding": embedding.reshape(1, -1)}
        features: Floats = self._conditions.run(inputs)["speaker_features"]
        return features

    def new_state(self, speaker: Floats, noise: Floats | None = None, left_context: float | None = None) -> FlowState:
        """State for one turn.

        Args:
            speaker: (1, mel) float32 of `speaker_features`.
            noise: (frames, mel) float32 to start from instead of the stage's own.
            left_context: seconds, instead of the stage's own.
        """
        c, kept = self.units_config, self._kept(left_context)
        blocks = min(kept + WORKING_BLOCKS, math.ceil(MEMORY.first_seconds * c.unit_rate / c.block_units))
        encoder = GraphState(self._encoder, lambda name: blocks * self._encoder_positions(name, c.block_units))
        steps = [GraphState(self._step, lambda _: blocks * c.block_frames) for _ in self._each]
        window = BlockWindow(c.block_frames, kept)
        return FlowState(speaker, self.noise if noise is None else noise, encoder, steps, window)

    def warm_up(self) -> None:
        """Call the solver in every shape that padded calls have: kernels are compiled then, and not within a turn."""
        if self._first:
            self._first.warm_up(self.units_config.mel)
        shapes = self._padded_shapes()
        if not shapes:
            return
        state, zero = self.new_state(np.zeros((1, self.units_config.mel), np.float32)), np.zeros(1, np.int64)
        for rows, shown in shapes:
            frames = np.zeros((1, rows, self.units_config.mel), np.float32)
            mask = np.ones((1, 1, rows, shown), np.bool_)
            inputs = {"z": frames, "mu": frames, "speaker": state.speaker, "mask": mask}
            for _ in range(2):  # the second call is recorded
                self._solve(state, {**inputs, "write": zero, "commit": zero})

    def _padded_shapes(self) -> list[tuple[int, int]]:
        """(frames, cache positions) of all padded calls of the solver; empty where its graph takes any."""
        capacity, most = cache_positions(self._step), self._step.most("z", 1)
        if capacity is None or most is None:
            return []
        lengths = sorted({shown_positions(used, capacity) for used in range(1, capacity + 1)})
        rows = sorted({self._rows(frames) for frames in range(1, most + 1)})
        return [(count, shown) for count in rows for shown in lengths if shown >= count]

    def nbytes(self, seconds: float, left_context: float | None = None) -> int:
        """Bytes that the caches of a turn with `seconds` of sound take at most.

        Args:
            seconds: of sound.
            left_context: as in `new_state`.
        """
        c = self.units_config
        spoken = math.ceil(seconds * c.unit_rate / c.block_units)
        blocks = min(spoken, self._kept(left_context) + WORKING_BLOCKS)
        encoder = cache_bytes(self._encoder, lambda name: spoken * self._encoder_positions(name, c.block_units))
        return encoder + self.solver.steps * cache_bytes(self._step, lambda _: blocks * c.block_frames)

    def _kept(self, left_context: float | None) -> int:
        """Finished blocks that stay visible beside the one at work."""
        c = self.units_config
        seconds = self.left_context if left_context is None else left_context
        return max(math.ceil(seconds * c.unit_rate / c.block_units) - 1, 0)

    def reset(self, state: FlowState) -> None:
        """Begin another turn with a state's memory."""
        for part in (state.encoder, *state.steps):
            part.reset()
        state.window = BlockWindow(self.units_config.block_frames, state.window.kept)
        state.units.clear()
        state.done = state.emitted = 0

    def _encoder_positions(self, name: str, units: int) -> int:
        """Cache positions of `units` units: the layers behind the up-sampling have one per frame."""
        return units * self.units_config.ratio if name.startswith("up_") else units

    def step(self, state: FlowState, units: list[int], final: bool) -> FlowOutput:
        """Add units and compute every frame that is not final yet.

        Args:
            state: moves on.
            units: new unit ids, each below the embedding table's size; may be empty in the final call.
            final: no unit will follow, so the look-ahead is computed as well.

        Returns:
            The recomputed frames; `new` of them were not returned before (none if there are too few units yet).
        """
        c = self.units_config
        state.units.extend(units)
        total, start = len(state.units), state.done
        until = total if final else max(total - c.lookahead, state.emitted)
        finished = start if final else c.block_units * (max(total - c.lookahead, 0) // c.block_units)
        if until == start or total == start:
            return FlowOutput(np.zeros((0, c.mel), np.float32), start * c.ratio, 0)
        if self._first and finished == 0 and total <= self._first.most:
            mel = self._first.solve(state.units, until, state.speaker, state.noise)
        else:
            mel = self._continue(state, start, until, finished)
        output = FlowOutput(mel, start * c.ratio, (until - state.emitted) * c.ratio)
        state.done, state.emitted = finished, until
        return output

    def _continue(self, state: FlowState, start: int, until: int, finished: int) -> Floats:
        """Mel of the units from `start` to `until`, of which those before `finished` leave their state behind."""
        c, total = self.units_config, len(state.units)
        mu = np.ascontiguousarray(self._encode(state, start, total, finished - start)[:, : (until - start) * c.ratio])
        first, stop = start * c.ratio, until * c.ratio
        write = state.window.allocate(first, stop)
        for step in state.steps:
            step.reserve(lambda _: state.window.capacity)
            step.show(state.window.used)
        inputs: dict[str, NDArray[Any]] = {
            "z": np.take(state.noise, np.arange(first, stop), axis=0, mode="wrap")[None],
            "mu": mu,
            "speaker": state.speaker,
            "mask": state.window.mask(),
            "write": np.array([write], np.int64),
            "commit": np.array([(finished - start) * c.ratio], np.int64),
        }
        return self._solve(state, self._padded(inputs))[: stop - first]

    def _padded(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The solver's inputs in one of few shapes, where its graph fixes how long its caches are: then a call of each
        shape is prepared once. The frames added fill up the block at work, and no mask shows them to others."""
        capacity, frames = cache_positions(self._step), inputs["z"].shape[1]
        if capacity is None:
            return inputs
        rows = self._rows(frames)
        shown = shown_positions(max(inputs["mask"].shape[3], int(inputs["write"][0]) + rows), capacity)
        mask = np.zeros((1, 1, rows, shown), np.bool_)
        mask[:, :, :frames, : inputs["mask"].shape[3]] = inputs["mask"]
        mask[:, :, frames:] = mask[:, :, frames - 1 : frames]
        longer = {name: np.pad(inputs[name], ((0, 0), (0, rows - frames), (0, 0))) for name in ("z", "mu")}
        return {**inputs, **longer, "mask": mask}

    def _rows(self, frames: int) -> int:
        """Frames of the padded call for this number of frames."""
        most = self._step.most("z", 1) or frames
        return min(padded_frames(frames, self.units_config.block_frames), max(most, frames))

    def _encode(self, state: FlowState, start: int, total: int, commit: int) -> Floats:
        c = self.units_config
        state.encoder.reserve(lambda name: self._encoder_positions(name, total))
        outputs = state.encoder.run(
            {
                "units": np.asarray(state.units[start:total], np.int64)[None],
                "write": np.array([start], np.int64),
                "commit": np.array([commit], np.int64),
                "mask": block_mask(start, total, c.block_units),
                "up_mask": block_mask(start * c.ratio, total * c.ratio, c.block_frames),
            }
        )
        return outputs["mu"]

    def _solve(self, state: FlowState, inputs: dict[str, NDArray[Any]]) -> Floats:
        """From the noise along the velocities: mel (t, mel) of the frames at work."""
        inputs = inputs | {"velocity_before": np.zeros_like(inputs["z"])}
        carried = {"new_z": "z", "velocity": "velocity_before"}
        mel: Floats = GraphState.run_chain(state.steps, inputs, self._each, carried)["new_z"][0]
        return mel


def padded_frames(frames: int, block: int) -> int:
    """Frames of a padded call: few, or whole blocks, so that no block but those at work is written to."""
    whole = -(-frames // block) * block
    return whole if frames > FEWEST_FRAMES else min(FEWEST_FRAMES, whole)


def shown_positions(used: int, capacity: int) -> int:
    """Cache positions that a padded call shows, at least `used` of them."""
    shown = FEWEST_SHOWN
    while shown < used:
        shown *= 2
    return min(shown, capacity)
