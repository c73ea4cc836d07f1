"""Where a training run keeps what it makes; every file is written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni2_training.domain import Corpus, Item, Turn


@dataclass(frozen=True)
class Workspace:
    """The state directory of a run.

    Args:
        root: made on first use. It holds `packages/` (voices and models that are no Python package), `cache/`,
            `corpus.jsonl`, `answers/` and `questions/` (synthesised speech), `features/`, and a directory for every
            stage's checkpoints.
    """

    root: Path

    def path(self, *parts: str) -> Path:
        """A path inside, its parents made."""
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, path: Path, save: Callable[[Path], None]) -> None:
        """Let `save` write a file under another name, then give it its own: half a file is never seen."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{os.getpid()}-{path.name}")
        save(unfinished)
        unfinished.replace(path)

    def save_arrays(self, path: Path, **arrays: NDArray[Any]) -> None:
        """Write arrays as one `.npz` file."""

        def save(unfinished: Path) -> None:
            with unfinished.open("wb") as file:
                np.savez(file, **arrays)

        self.write(path, save)

    def answer(self, text: str, voice: str) -> Path:
        """Where a synthesised answer is kept: by voice and text, so that another corpus uses what is there."""
        return self.path("answers", voice, f"{digest(text)}.npz")

    def save_corpus(self, corpus: Corpus) -> None:
        """Write `corpus.jsonl`."""
        lines = [
            json.dumps({"part": part, **asdict(item)}, ensure_ascii=False)
            for part, items in (("train", corpus.train), ("test", corpus.test))
            for item in items
        ]
        self.write(self.path("corpus.jsonl"), lambda path: path.write_text("\n".join(lines) + "\n", encoding="utf-8"))

    def corpus(self) -> Corpus:
        """Read it back."""
        corpus = Corpus([], [])
        for line in self.path("corpus.jsonl").read_text(encoding="utf-8").splitlines():
            fields: dict[str, Any] = json.loads(line)
            part = fields.pop("part")
            fields["turns"] = tuple(Turn(**turn) for turn in fields["turns"])
            fields["combinations"] = tuple(fields["combinations"])
            getattr(corpus, part).append(Item(**fields))
        return corpus


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]
