"""The words of the domain, from `words.yaml`: lists of words, and pairs."""

from __future__ import annotations

from omni2_training.domain.grammar import read


def words_of(name: str) -> list[str]:
    """A list, in its order."""
    return list(read("words")[name])


def pairs_of(name: str) -> list[tuple[str, str]]:
    """Pairs that belong together."""
    return list(read("words")[name].items())
