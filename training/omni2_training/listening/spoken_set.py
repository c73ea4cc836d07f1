"""Stage `set`: held-out questions as audio files, for `omni2-engine bench quality`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import soundfile
from rich.console import Console

from omni2_bench.quality.questions import INDEX
from omni2_training.config import Settings
from omni2_training.domain import Item
from omni2_training.listening.hear import questions
from omni2_training.listening.voices import SAMPLE_RATE, Asking, heard
from omni2_training.workspace import Workspace


def write_set(settings: Settings, workspace: Workspace, console: Console, every: int = 1) -> Path:
    """Write `set/questions.jsonl` and an Ogg file of every turn, asked as in stage `questions`.

    Args:
        every: of each kind, the first held-out conversation and every so many-th after it.
    """
    corpus = workspace.corpus()
    asking: dict[tuple[Item, int], Asking] = {
        (q.item, q.turn): q.asking for q in questions(corpus, settings.seed) if q.held
    }
    folder = workspace.path("set", INDEX).parent
    for old in folder.glob("*.ogg"):  # another `every` numbers its files otherwise
        old.unlink()
    lines: list[str] = []
    seen: Counter[str] = Counter()
    for item in corpus.test:
        seen[item.kind] += 1
        if (seen[item.kind] - 1) % every:
            continue
        turns = []
        for number, turn in enumerate(item.turns):
            name = f"{len(lines):03d}-{number}.ogg"
            audio = heard(turn.question, asking[item, number])
            soundfile.write(folder / name, audio, SAMPLE_RATE, format="OGG", subtype="OPUS")
            turns.append({"audio": name, "question": turn.question, "answer": turn.answer})
        lines.append(json.dumps({"kind": item.kind, "turns": turns}, ensure_ascii=False))
    workspace.write(folder / INDEX, lambda path: path.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    console.print(f"{len(lines)} conversations in {folder}")
    return folder
