"""Flow-matching stage: speech units → mel frames, computing only the block that is not final yet (spec §8, §11).

Attention looks at whole blocks of two seconds. Once a block and its look-ahead are complete nothing changes it any more: its
keys, values and convolution contexts stay in the state, per Euler step, and the next call starts behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base import BoundGraph, Graph
from omni2_engine.config import EstimatorConfig, FlowEncoderConfig

Floats = NDArray[np.float32]
FIRST_CAPACITY = 4  # blocks the caches hold at first; they double when full


@dataclass
class _Caches:
    """State of one graph: caches bound in place, small contexts passed along."""

    graph: Graph
    caches: dict[str, Floats] = field(default_factory=dict)
    contexts: dict[str, Floats] = field(default_factory=dict)
    bound: BoundGraph | None = None

    def grow(self, blocks: int, positions: dict[str, int]) -> None:
        """Make every cache long enough for `blocks` blocks, keeping what it holds.

        Args:
            positions: positions per block of each symbolic capacity dimension.
        """
        for name, shape in self.graph.inputs.items():
            if not ("keys" in name or "values" in name):
                continue
            capacity = blocks * positions[str(shape[2])]
            cache = np.zeros((shape[0], shape[1], capacity, shape[3]), np.float32)
            if name in self.caches:
                old = self.caches[name]
                cache[:, :, : old.shape[2]] = old
            self.caches[name] = cache
        self.bound = self.graph.bind(self.caches)

    def run(self, inputs: dict[str, NDArray[np.generic]]) -> dict[str, Floats]:
        """Run once; the contexts move on to what the graph returns for them."""
        assert self.bound is not None
        outputs = self.bound.run({**inputs, **self.contexts})
        self.contexts = {name: outputs[f"new_{name}"] for name in self.contexts}
        return outputs


@dataclass
class FlowState:
    """What one turn's flow has said so far; made by `Flow.new_state`.

    `units` (N,) are all units of the turn, `done` of them in finished blocks, `voiced` of them already given out as mel.
    """

    speaker: Floats
    noise: Floats
    encoder: _Caches
    steps: list[_Caches]
    units: list[int] = field(default_factory=list)
    done: int = 0
    voiced: int = 0
    blocks: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of caches and contexts."""
        parts = [self.encoder, *self.steps]
        return sum(a.nbytes for part in parts for a in (*part.caches.values(), *part.contexts.values()))


@dataclass(frozen=True)
class FlowOutput:
    """Mel frames of one call: `mel` (t, mel) float32 from frame `start` of the turn on, the last `new` of them not given out before."""

    mel: Floats
    start: int
    new: int

    @property
    def new_mel(self) -> Floats:
        """(new, mel) float32."""
        return self.mel[len(self.mel) - self.new :]


class Flow:
    """Flow encoder and Euler solver.

    Args:
        encoder: the `flow_encoder` graph.
        step: the `flow_step` graph.
        conditions: the `flow_conditions` graph.
        encoder_config, config: their dimensions.
        noise: (frames, mel) float32, the solver's fixed start (spec §8.2).
    """

    def __init__(
        self,
        encoder: Graph,
        step: Graph,
        conditions: Graph,
        encoder_config: FlowEncoderConfig,
        config: EstimatorConfig,
        noise: Floats,
    ) -> None:
        self._encoder = encoder
        self._step = step
        self._conditions = conditions
        self.units_config = encoder_config
        self.config = config
        self.noise = noise
        self._times = np.asarray(config.time_points(), np.float32)
        silent = np.ones((1, config.speaker), np.float32)
        self._shifts: Floats = conditions.run({"t": self._times[:-1], "embedding": silent})["shifts"]

    def speaker_features(self, embedding: Floats) -> Floats:
        """Project a voice: embedding (speaker,) float32 → (1, mel) float32 (spec §7)."""
        inputs = {"t": self._times[:1], "embedding": embedding.reshape(1, -1)}
        features: Floats = self._conditions.run(inputs)["speaker_features"]
        return features

    def new_state(self, speaker: Floats, noise: Floats | None = None) -> FlowState:
        """State for one turn.

        Args:
            speaker: (1, mel) float32 of `speaker_features`.
            noise: (frames, mel) float32 to start from instead of the engine's own.
        """
        encoder = _Caches(self._encoder, contexts=_zero_contexts(self._encoder))
        steps = [_Caches(self._step, contexts=_zero_contexts(self._step)) for _ in range(self.config.steps)]
        return FlowState(speaker, self.noise if noise is None else noise, encoder, steps)

    def step(self, state: FlowState, units: list[int], final: bool) -> FlowOutput:
        """Add units and compute every frame that is not final yet.

        Args:
            state: moves on.
            units: new unit ids, each below the embedding table's size; may be empty in the final call.
            final: no unit will follow, so the look-ahead is voiced as well.

        Returns:
            The recomputed frames; `new` of them have not been given out before (none if there are too few units yet).
        """
        c = self.units_config
        state.units.extend(units)
        total, start = len(state.units), state.done
        voiced = total if final else max(total - c.lookahead, state.voiced)
        finished = start if final else c.block_units * (max(total - c.lookahead, 0) // c.block_units)
        if voiced == start or total == start:
            return FlowOutput(np.zeros((0, c.mel), np.float32), start * c.ratio, 0)
        self._reserve(state, total)
        mu = self._encode(state, start, total, finished - start)[:, : (voiced - start) * c.ratio]
        mel = self._solve(state, np.ascontiguousarray(mu), start * c.ratio, (finished - start) * c.ratio)
        output = FlowOutput(mel, start * c.ratio, (voiced - state.voiced) * c.ratio)
        state.done, state.voiced = finished, voiced
        return output

    def _reserve(self, state: FlowState, total: int) -> None:
        c = self.units_config
        needed = -(-total // c.block_units)
        if needed <= state.blocks:
            return
        state.blocks = max(needed, 2 * state.blocks, FIRST_CAPACITY)
        state.encoder.grow(state.blocks, {"capacity": c.block_units, "up_capacity": c.block_frames})
        for step in state.steps:
            step.grow(state.blocks, {"capacity": c.block_frames})

    def _encode(self, state: FlowState, start: int, total: int, commit: int) -> Floats:
        c = self.units_config
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

    def _solve(self, state: FlowState, mu: Floats, start: int, commit: int) -> Floats:
        """Euler's method from the noise along the velocity, times accumulated in float32 as upstream does (spec §8.2)."""
        stop = start + mu.shape[1]
        mask = block_mask(start, stop, self.units_config.block_frames)
        z = np.take(state.noise, np.arange(start, stop), axis=0, mode="wrap")[None]
        common = {"mu": mu, "speaker": state.speaker, "mask": mask}
        common |= {"write": np.array([start], np.int64), "commit": np.array([commit], np.int64)}
        now, dt = self._times[0], self._times[1] - self._times[0]
        for index, step in enumerate(state.steps):
            inputs = {"z": z, "shifts": self._shifts[index], "dt": np.array([dt], np.float32), **common}
            z = step.run(inputs)["new_z"]
            now = now + dt
            if index + 2 < len(self._times):
                dt = self._times[index + 2] - now
        return z[0]


def block_mask(start: int, stop: int, block: int) -> NDArray[np.bool_]:
    """(1, 1, stop − start, stop): position i sees every position of its own block and of those before (spec §8.1)."""
    ends = (np.arange(start, stop) // block + 1) * block
    return (np.arange(stop)[None, :] < ends[:, None])[None, None]


def _zero_contexts(graph: Graph) -> dict[str, Floats]:
    return {
        name: np.zeros([int(size or 0) for size in shape], np.float32)
        for name, shape in graph.inputs.items()
        if "context" in name
    }
