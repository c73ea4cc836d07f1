"""Conversations drawn anew, as many as are wanted: questions of the corpus' kinds, and exercises in their rules."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from omni2_training.domain.corpus import KINDS, held_out
from omni2_training.domain.item import Item

EVENNESS = 0.7  # power of the kinds' sizes they are drawn by: the few items of a small kind come somewhat more often


def drawn(sizes: Mapping[str, int], turns: int, count: int, rng: np.random.Generator) -> list[Item]:
    """Items of `turns` turns that training may see; half of those of a kind with a rule are exercises in it.

    Args:
        sizes: kind → items of the corpus.
        turns: 1, or 2 for questions and what follows from them.
        count: of items.
        rng: decides everything.
    """
    chance = random.Random(int(rng.integers(2**62)))
    kinds = [kind for kind in KINDS if kind.turns == turns]
    weights = [sizes[kind.name] ** EVENNESS * kind.emphasis for kind in kinds]
    items: list[Item] = []
    while len(items) < count:
        [kind] = chance.choices(kinds, weights)
        draw = kind.practise if kind.practise and chance.random() < 0.5 else kind.draw
        item = draw(chance)
        if not held_out(item):
            items.append(item)
    return items


def parts(turns: int, follow_ups: float, rng: np.random.Generator, draw: Callable[[int], Item]) -> list[Item]:
    """Items that make up one conversation of mixed questions.

    Args:
        turns: of all items together.
        follow_ups: share of the places for two turns that an item of two turns takes.
        rng: decides which places.
        draw: gives an item of one turn or of two.
    """
    items: list[Item] = []
    while turns:
        length = 2 if turns > 1 and rng.random() < follow_ups else 1
        items.append(draw(length))
        turns -= length
    return items


def joined(items: Sequence[Item]) -> Item:
    """Items one after another as one conversation, of the kind of the last."""
    return Item(
        items[-1].kind,
        tuple(c for item in items for c in item.combinations),
        " > ".join(item.phrasing for item in items),
        any(item.held for item in items),
        tuple(turn for item in items for turn in item.turns),
    )


def conversations(
    sizes: Mapping[str, int], turns: int, follow_ups: float, count: int, rng: np.random.Generator
) -> list[Item]:
    """Mixed conversations of `turns` turns, drawn as `drawn` draws their items."""
    return [joined(parts(turns, follow_ups, rng, lambda length: drawn(sizes, length, 1, rng)[0])) for _ in range(count)]
