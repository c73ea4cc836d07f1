"""How much sound is out after a number of units, and which mel frames a call computes for it (spec §10, §11)."""

from __future__ import annotations

from dataclasses import dataclass

from omni2_engine.model.config import VOCODER_OVERLAP_FRAMES, FlowEncoderConfig, ModelConfig


@dataclass(frozen=True)
class SoundRates:
    """The arithmetic of one model's flow and vocoder calls.

    Args:
        units: the flow encoder's dimensions.
        frame: seconds of one mel frame.
    """

    units: FlowEncoderConfig
    frame: float

    @classmethod
    def of(cls, config: ModelConfig) -> SoundRates:
        """A model's."""
        return cls(config.flow_encoder, config.vocoder.hop / config.vocoder.sample_rate)

    def out(self, units: int, final: bool) -> float:
        """Seconds of sound given out in all, once a call has seen `units` units: the look-ahead and the vocoder's
        overlap are held back but by the final call."""
        frames = self.frames(units, final) - (0 if final else VOCODER_OVERLAP_FRAMES)
        return max(frames, 0) * self.frame

    def frames(self, units: int, final: bool) -> int:
        """Mel frames that are voiced, once a call has seen `units` units."""
        return self.units.ratio * max(units - (0 if final else self.units.lookahead), 0)

    def finished(self, units: int) -> int:
        """Mel frames of blocks that are final after a call on `units` units, so that no later one computes them."""
        c = self.units
        return c.block_frames * (max(units - c.lookahead, 0) // c.block_units)

    def vocoded(self, before: int, units: int, final: bool) -> int:
        """Mel frames of a vocoder call that follows one on `before` units: the new ones, and the overlap kept."""
        overlap = VOCODER_OVERLAP_FRAMES if before else 0
        return self.frames(units, final) - self.frames(before, False) + overlap
