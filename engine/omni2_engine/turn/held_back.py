"""What a prepared turn keeps to itself until it is asked for: its first chunks, its text, all steps beyond."""

from __future__ import annotations

from dataclasses import dataclass, field

from omni2_engine.settings.tuning import TURN
from omni2_engine.turn.chunk_maker import VocodedSound
from omni2_engine.turn.plan import RunFlow, RunVocoder, Step


@dataclass
class HeldBack:
    """One chunk is made after the other, so that the first is there as soon as it can be. Guarded by the lock of its
    `TurnRun`.

    Attributes:
        steps: beyond the chunk that is made, in their order.
        sounds: of the first chunks, as they come.
        text: pieces that were written, in their order.
    """

    steps: list[Step] = field(default_factory=list)
    sounds: list[VocodedSound] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    _calls: int = 0  # of the flow that have been submitted

    def keeps(self, step: Step) -> bool:
        """Whether a step goes beyond the chunk that is made, or the last that is made ahead; it is kept then."""
        if not isinstance(step, RunVocoder) and (self.rests or self._calls > len(self.sounds)):
            self.steps.append(step)
            return True
        self._calls += isinstance(step, RunFlow)
        return False

    def let_go(self) -> list[Step]:
        """The steps that were kept; they may be submitted now."""
        steps, self.steps = self.steps, []
        return steps

    @property
    def rests(self) -> bool:
        """Whether all that may be made ahead is there."""
        return bool(self.sounds) and (self.sounds[-1].final or len(self.sounds) == TURN.prepared_chunks)
