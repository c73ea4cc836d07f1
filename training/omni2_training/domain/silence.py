"""Nothing that can be understood: silence, noise or music in place of a question."""

from __future__ import annotations

import random

from omni2_training.domain.item import Item, Kind, Turn

UNHEARD = "I did not hear you."


def draw_silence(rng: random.Random) -> Item:
    """A turn without a word; its question has no text."""
    return Item("silence", ("",), "", False, (Turn("", UNHEARD),))


KINDS = (Kind("silence", draw_silence, open=False),)
