"""Asking for the last answer once more."""

from __future__ import annotations

import random

from omni2_training.domain import arithmetic, calendar, clock, facts, spelling, talk
from omni2_training.domain.grammar import worded
from omni2_training.domain.item import Item, Kind, Turn

FIRST = (
    arithmetic.draw_single,
    arithmetic.draw_story,
    calendar.draw_neighbour,
    calendar.draw_month,
    clock.draw_clock,
    facts.draw_capital,
    facts.draw_fact,
    spelling.draw,
    talk.draw_talk,
)


def draw_again(rng: random.Random) -> Item:
    """A question of another kind, and "what did you say?": the same answer twice."""
    first = rng.choice(FIRST)(rng)
    asked = worded(rng, "again", plain=True)
    [turn] = first.turns
    turns = (turn, Turn(asked.text, turn.answer))
    return Item("again", first.combinations, f"{first.phrasing} > {asked.phrasing}", first.held or asked.held, turns)


KINDS = (Kind("again", draw_again, open=True, practise=draw_again, turns=2),)
