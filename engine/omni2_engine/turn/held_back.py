"""What a prepared turn keeps to itself until it is asked for: its first sound, its text, all steps beyond."""

from __future__ import annotations

from dataclasses import dataclass, field

from omni2_engine.turn.chunk_maker import VocodedSound
from omni2_engine.turn.plan import RunFlow, RunVocoder, Step


@dataclass
class HeldBack:
    """Guarded by the lock of its `TurnRun`.

    Attributes:
        steps: beyond the first chunk, in their order.
        sound: of the first chunk, once it is there.
        text: pieces that were written, in their order.
    """

    steps: list[Step] = field(default_factory=list)
    sound: VocodedSound | None = None
    text: list[str] = field(default_factory=list)
    _last: bool = False  # the flow call of the first chunk has been submitted

    def keeps(self, step: Step) -> bool:
        """Whether a step goes beyond the first chunk; it is kept then."""
        if self._last and not isinstance(step, RunVocoder):
            self.steps.append(step)
            return True
        self._last = self._last or isinstance(step, RunFlow)
        return False
