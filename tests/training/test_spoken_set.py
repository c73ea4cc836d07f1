"""Held-out questions as files that `bench quality` reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from omni2_bench.quality.questions import read_questions
from omni2_engine.audio.source import read_audio
from omni2_training.config import Settings
from omni2_training.listening import spoken_set
from omni2_training.listening.voices import SAMPLE_RATE
from omni2_training.workspace import Workspace

from .conftest import copy_of


def tone(text: str, asking: object) -> np.ndarray:
    """Stands in for a synthesiser: as long as the text, and a little louder for every letter."""
    time = np.arange(600 * len(text)) / SAMPLE_RATE
    return (0.002 * len(text) * np.sin(2 * np.pi * 300 * time)).astype(np.float32)


@pytest.mark.parametrize("every", [1, 2])
def test_a_set_is_read_as_it_was_written(
    workspace: Workspace,
    settings: Settings,
    console: Console,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: int,
) -> None:
    monkeypatch.setattr(spoken_set, "heard", tone)
    mine = copy_of(workspace, tmp_path / "state")
    spoken_set.write_set(settings, mine, console, 3 - every)
    folder = spoken_set.write_set(settings, mine, console, every)
    read = read_questions(folder)
    assert len(list(folder.glob("*.ogg"))) == sum(len(c.turns) for c in read), "nothing of the set before is left"
    test = workspace.corpus().test
    counts = Counter(item.kind for item in test)
    assert Counter(c.kind for c in read) == {kind: -(-count // every) for kind, count in counts.items()}
    asked = {tuple((turn.question, turn.answer) for turn in item.turns) for item in test}
    assert {tuple((turn.question, turn.answer) for turn in c.turns) for c in read} <= asked
    for turn in (turn for c in read[:6] for turn in c.turns):
        sound, expected = read_audio(turn.audio, None, 30.0), tone(turn.question, None)
        assert abs(len(sound) - len(expected)) < 0.05 * SAMPLE_RATE
        assert np.std(sound) == pytest.approx(np.std(expected), rel=0.15)
