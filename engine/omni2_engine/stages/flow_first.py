"""The flow of a turn's first units, while none of its blocks is finished: encoder and solver in one chain of calls.

Until then nothing of a call is kept: the next one computes all of it again. So these calls need no state, one recorded
graph serves all sessions, and few shapes do: units are padded, and what is added is hidden from the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omni2_engine.backends.base.graph import Arrays, CallBefore, Graph
from omni2_engine.model.config import FlowEncoderConfig
from omni2_engine.stages.flow_window import block_mask

Floats = NDArray[np.float32]
FEWEST_UNITS = 32  # of a padded call


class FirstBlock:
    """Flow encoder and solver without state.

    Args:
        encoder: the `first_flow_encoder` graph.
        step: the `first_flow_step` graph.
        config: the encoder's dimensions.
        each: what every step of the solver is given beside the others, see `Graph.run_chain`.

    Attributes:
        most: units of a call, the look-ahead's included.
    """

    def __init__(self, encoder: Graph, step: Graph, config: FlowEncoderConfig, each: Sequence[Arrays]) -> None:
        self._encoder, self._step, self._config, self._each = encoder, step, config, each
        self._bound = [step.bind({})] * len(each)
        self.most = config.block_units + config.lookahead

    def solve(self, units: Sequence[int], until: int, speaker: Floats, noise: Floats) -> Floats:
        """Mel (until·ratio, mel) of a turn's first units.

        Args:
            units: all of the turn so far, `most` at most.
            until: how many of them have their look-ahead, or need none.
            speaker: (1, mel).
            noise: (frames, mel), from which the solver starts.
        """
        c = self._config
        padded = padded_units(len(units), c)
        frames = padded * c.ratio
        z = np.take(noise, np.arange(frames), axis=0, mode="wrap")[None]
        encoded = CallBefore(
            self._encoder,
            {
                "units": np.asarray([[*units, *[0] * (padded - len(units))]], np.int64),
                "present": (np.arange(padded) < len(units)).astype(np.float32)[None, :, None],
                "mask": _padded_mask(len(units), padded, c.block_units),
                "up_mask": _padded_mask(len(units) * c.ratio, frames, c.block_frames),
            },
            {"mu": "mu"},
        )
        inputs = {
            "z": z,
            "velocity_before": np.zeros_like(z),
            "speaker": speaker,
            "mask": _padded_mask(until * c.ratio, frames, c.block_frames),
        }
        carried = {"new_z": "z", "velocity": "velocity_before"}
        mel: Floats = self._step.run_chain(self._bound, inputs, self._each, carried, encoded)["new_z"][0]
        return mel[: until * c.ratio]

    def warm_up(self, mel: int) -> None:
        """Call it in every shape: kernels are compiled and the calls recorded then, and not within a turn."""
        for count in (FEWEST_UNITS, self.most):
            for _ in range(2):  # the second call is recorded
                self.solve([0] * count, count, np.zeros((1, mel), np.float32), np.zeros((1, mel), np.float32))


def padded_units(count: int, config: FlowEncoderConfig) -> int:
    """Units of the padded call for this number of units."""
    return FEWEST_UNITS if count <= FEWEST_UNITS else config.block_units + config.lookahead


def _padded_mask(count: int, padded: int, block: int) -> NDArray[np.bool_]:
    """(1, 1, padded, padded): `block_mask` of the first `count`; the others see what the last of them does."""
    mask = np.zeros((1, 1, padded, padded), np.bool_)
    mask[:, :, :count, :count] = block_mask(0, count, block)
    mask[:, :, count:] = mask[:, :, count - 1 : count]
    return mask
