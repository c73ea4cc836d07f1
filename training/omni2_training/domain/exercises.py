"""Conversations drawn anew, as many as are wanted: questions of the corpus' kinds, and exercises in their rules."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from omni2_training.domain.corpus import KINDS, held_combination, held_phrasing
from omni2_training.domain.item import Item, Turn, share

EVENNESS = 0.7  # power of the kinds' sizes they are drawn by: the few items of a small kind come somewhat more often
CALLS = ("Well.", "Excuse me.", "One more question.", "Listen.", "All right.", "Hello!", "Hi there!", "Next question.")
CALLED = 0.25  # share of the questions with a call in front
UNCALLED = ("talk", "repeat")  # kinds whose questions stay as they are


def drawn(sizes: Mapping[str, int], turns: int, count: int, rng: np.random.Generator) -> list[Item]:
    """Conversations of so many turns that training may see; half of those of a kind with a rule are exercises in it.

    Args:
        sizes: kind → items of the corpus.
        turns: 1 or 2.
        count: of conversations.
        rng: decides everything.
    """
    chance = random.Random(int(rng.integers(2**62)))
    kinds = [kind for kind in KINDS if ("again" in kind.name) == (turns > 1)]
    weights = [sizes[kind.name] ** EVENNESS * kind.emphasis for kind in kinds]
    items: list[Item] = []
    while len(items) < count:
        [kind] = chance.choices(kinds, weights)
        draw = kind.practise if kind.practise and chance.random() < 0.5 else kind.draw
        item = draw(chance)
        if not held_combination(item) and not held_phrasing(item):
            items.append(called(item))
    return items


def called(item: Item) -> Item:
    """The conversation, perhaps with something said before its first question that the corpus never says there.

    Its words alone decide, so that nothing else that is drawn depends on it.
    """
    first, *others = item.turns
    chosen = share(f"{first.question} called") / CALLED
    if chosen >= 1 or item.kind in UNCALLED:
        return item
    call = CALLS[int(chosen * len(CALLS))]
    return replace(item, turns=(Turn(f"{call} {first.question}", first.answer), *others))
