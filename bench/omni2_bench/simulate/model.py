"""One size of model: what its calls need, what is heard of its units, and the memory its sessions take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from omni2_bench.common.script import units_per_chunk
from omni2_bench.simulate.effort import Efforts
from omni2_bench.simulate.load import AnswerLength
from omni2_bench.simulate.sound import SoundRates
from omni2_engine.settings.tuning import MEMORY
from omni2_export.checkpoint_writer.dimensions import PRESETS
from omni2_export.tensorrt.shapes import Sizes, cache_length

TEMPLATE = 30  # positions of the chat template around a spoken question, its default system prompt included (spec §4)
BEGINNING = 24  # of them before the question


@dataclass(frozen=True)
class SimulatedModel:
    """One size.

    Args:
        size: as in `omni2_bench.random_checkpoint.PRESETS`.
        runtime, precision, tail: see `Efforts`.
    """

    size: str
    runtime: str = "tensorrt"
    precision: str = "balanced"
    tail: bool = False

    @cached_property
    def efforts(self) -> Efforts:
        """What its calls have to do."""
        return Efforts(PRESETS[self.size], self.runtime, self.precision, self.tail)

    @cached_property
    def sound(self) -> SoundRates:
        """What is heard of this number of units."""
        return SoundRates.of(self.efforts.config)

    @property
    def read(self) -> int:
        """R."""
        return self.efforts.config.read

    @property
    def write(self) -> int:
        """W."""
        return self.efforts.config.write

    @property
    def hop(self) -> int:
        """Units of a first flow call."""
        return units_per_chunk(self.efforts.config)

    @property
    def prompt(self) -> int:
        """Positions of a first question's prompt."""
        return self.efforts.config.encoder.positions + TEMPLATE

    def memory(self, sessions: int, turns: int, answer: AnswerLength) -> float:
        """Bytes that a device must have: for weights, for the language models' caches of every session, and for the
        flow's of every turn that is being answered. The engine gives caches a share of what weights leave; the rest is
        for calls. A plan makes caches as long as it was built for, ONNX Runtime as long as this answer asks."""
        efforts = self.efforts
        text, speech = self.prompt + answer.tokens, answer.tokens + answer.units
        frames = self.sound.frames(answer.units, True)
        if self.runtime == "tensorrt":
            sizes, config = Sizes(), efforts.config
            text, speech = (cache_length(count) for count in (sizes.positions(config), sizes.speech_positions(config)))
            frames = sizes.solver_frames(config)
        caches = sessions * efforts.decoder_caches(text, speech) + turns * efforts.flow_cache * frames
        return efforts.weights + caches / MEMORY.share
