"""What a turn asks of the schedule: a place for its steps."""

from __future__ import annotations

from typing import Protocol

from omni2_engine.turn.plan import Step
from omni2_engine.turn.step_runner import StepRunner


class SessionQueue(Protocol):
    """One session's place in the schedule: takes the steps of its turns, one turn at a time.

    Steps of one stage run one after another, in the order of their submission; steps of different stages may run at
    once. A step that raises ends the turn, and the session's owner is told.
    """

    def begin(self) -> None:
        """A turn begins: its first chunk of sound is due at once."""
        ...

    def speculate(self) -> None:
        """Work begins on a turn that may never be asked for: until `begin`, its steps run only where no step waits of a
        session that needs sound soon."""
        ...

    def submit(self, step: Step, run: StepRunner) -> None:
        """Queue a step of a turn, or of earlier turns that are fed.

        Raises:
            SessionCancelledError: the turn was cancelled, or the session closed.
        """
        ...

    def lead(self) -> float:
        """Seconds of sound the player has left; negative where it has run dry."""
        ...

    def delivered(self, seconds: float) -> None:
        """That much sound went to the player, or is kept for it by a turn that is not asked for yet."""
        ...

    def preempted(self) -> bool:
        """Whether a text token of another session is more urgent than the rest of a decoding call that runs."""
        ...

    def hold(self, held: bool) -> None:
        """While held, no step of the session starts."""
        ...

    def finish(self) -> None:
        """The turn is over."""
        ...

    def cancel(self) -> None:
        """Drop the steps that are queued; a step that runs finishes. Returns at once, from any thread."""
        ...

    def revive(self) -> None:
        """Make ready for the next turn, once nothing of the one before runs."""
        ...

    def drained(self) -> None:
        """Wait until no step of the session runs.

        Raises:
            SchedulerError: the calling thread is inside a step, and must not wait.
        """
        ...

    def run_step(self) -> bool:
        """Run the next step on the calling thread; False where other threads run the steps, or none is left."""
        ...

    def close(self) -> None:
        """`cancel`, and give the place back."""
        ...
