"""The words of the domain, from `words.yaml`: lists of words, pairs, and what is asked for which answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_LEXICON: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "words.yaml").read_text(encoding="utf-8"))


def words_of(name: str) -> list[str]:
    """A list, in its order."""
    return list(_LEXICON[name])


def pairs_of(name: str) -> list[tuple[str, str]]:
    """Pairs that belong together."""
    return list(_LEXICON[name].items())


def answers_of(name: str) -> list[tuple[tuple[str, ...], str]]:
    """(what may be asked, the answer)."""
    return [(tuple(questions), answer) for answer, questions in _LEXICON[name].items()]
