"""How many units go into one call of the flow: always as few as possible, or more once the player has a lead."""

from __future__ import annotations

from dataclasses import dataclass

from omni2_engine.settings.tuning import TURN


@dataclass(frozen=True)
class ChunkSchedule:
    """Units per flow call.

    A longer chunk costs less per second of sound, as the flow computes an unfinished block anew in every call, and
    comes later. What is heard depends a little on where chunks end, so only a fixed schedule gives the same samples
    on a machine of any speed.

    Args:
        first: units of the first call, and of every call of a fixed schedule.
        unit_rate: units per second of sound.
        growing: whether calls may take more.
    """

    first: int
    unit_rate: float
    growing: bool = False

    @property
    def most(self) -> int:
        """Units of the longest call."""
        return self.first * (TURN.growth[-1] if self.growing else 1)

    def room(self, lead: float) -> int:
        """Units a call takes at most of those that are written already.

        Args:
            lead: seconds of sound the player has left.

        Returns:
            Twice the lead, as they are made faster than they are played, and at least twice the first size: a player
            that needs sound soon waits for a short call. One that has been without for `TurnTuning.late` gets the
            longest, as short calls do not catch up.
        """
        if lead < -TURN.late:
            return self.most
        return min(self.most, max(self.first * TURN.growth[1], int(2 * lead * self.unit_rate)))

    def next(self, lead: float, last: int) -> int:
        """Units the next call waits for.

        Args:
            lead: seconds of sound the player has left.
            last: units of the call before, 0 before the first.

        Returns:
            At most twice the last, and never more sound than half the lead: while that much is written and synthesised
            in real time, the player stays fed. A player that has been without sound for `TurnTuning.late` gets twice
            the first.
        """
        if not self.growing:
            return self.first
        if last and lead < -TURN.late:
            return self.first * TURN.growth[1]
        limit = min(2 * last, int(lead * self.unit_rate / 2))
        return max(size for size in (self.first * factor for factor in TURN.growth) if size <= max(limit, self.first))
