"""All kinds together: a training part and a held-out part that shares neither combination nor wording with it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from omni2_training.domain import (
    again,
    arithmetic,
    calendar,
    clock,
    counting,
    facts,
    outside,
    repeat,
    silence,
    spelling,
    talk,
)
from omni2_training.domain.item import Item, Kind, share
from omni2_training.domain.others import KEPT, plain

KINDS: tuple[Kind, ...] = tuple(
    kind
    for module in (arithmetic, calendar, clock, counting, spelling, facts, talk, outside, repeat, silence, again)
    for kind in module.KINDS
)
HELD_COMBINATIONS = 0.12  # share of the combinations of open kinds
MOST_TRIES = 60  # draws for each item that is wanted: small kinds run out of new ones


@dataclass(frozen=True)
class Corpus:
    """What may be trained on, and what may only be tested."""

    train: list[Item]
    test: list[Item]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Kind → how many items to train and to test."""
        train, test = (Counter(item.kind for item in items) for items in (self.train, self.test))
        return {kind.name: (train[kind.name], test[kind.name]) for kind in KINDS}


def held_out(item: Item) -> bool:
    """Whether an item is kept from training: one of its wordings is, one of its combinations, or a whole question."""
    if item.held or any(plain(turn.question) in KEPT for turn in item.turns):
        return True
    kind = next(kind for kind in KINDS if kind.name == item.kind)
    return kind.open and any(share(combination) < HELD_COMBINATIONS for combination in item.combinations)


def draw_corpus(sizes: dict[str, int], test_share: float, seed: int) -> Corpus:
    """Draw different items of every kind.

    Args:
        sizes: kind → items to train, fewer where the kind has no more.
        test_share: held-out items in relation to `sizes`.
        seed: one seed, one corpus.

    Raises:
        KeyError: `sizes` names a kind that does not exist, or leaves one out.
    """
    unknown = sizes.keys() ^ {kind.name for kind in KINDS}
    if unknown:
        raise KeyError(f"kinds that are unknown or without a size: {', '.join(sorted(unknown))}")
    corpus = Corpus([], [])
    for kind in KINDS:
        rng = random.Random(f"{seed} {kind.name}")
        wanted = {False: sizes[kind.name], True: max(1, round(sizes[kind.name] * test_share))}
        seen: set[tuple[str, ...]] = set()
        for _ in range(MOST_TRIES * sum(wanted.values())):
            item = kind.draw(rng)
            held = held_out(item)
            words = tuple(turn.question for turn in item.turns)
            if wanted[held] and words not in seen:
                seen.add(words)
                wanted[held] -= 1
                (corpus.test if held else corpus.train).append(item)
            if not any(wanted.values()):
                break
    return corpus
