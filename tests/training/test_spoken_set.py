"""Held-out questions as files that `bench quality` reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from omni2_bench.quality.questions import read_questions
from omni2_engine.audio.source import read_audio
from omni2_training.config import Settings
from omni2_training.domain.others import OTHERS
from omni2_training.listening import spoken_set, voices
from omni2_training.listening.unheard import unheard
from omni2_training.listening.voices import SAMPLE_RATE, Asking, heard
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


def test_own_words_are_asked_in_four_voices_and_eight_in_a_row(
    workspace: Workspace, console: Console, tmp_path: Path
) -> None:
    mine = copy_of(workspace, tmp_path / "state")
    folder = spoken_set.write_own_words(mine, console, tone)
    alone, talks = read_questions(folder), read_questions(folder.parent / spoken_set.CONVERSATIONS)
    assert len(alone) == len(OTHERS) * len(spoken_set.VOICES) and len({turn.audio for c in alone for turn in c.turns})
    assert {len(talk.turns) for talk in talks} == {8} and len(talks) == 2 * len(spoken_set.VOICES)
    recordings = {c.turns[0].audio.resolve(): c.turns[0].question for c in alone}
    for talk in talks:
        assert all(recordings[turn.audio.resolve()] == turn.question for turn in talk.turns)
        assert len({turn.audio for turn in talk.turns}) == 8
    [unheard] = {c.turns[0].accept for c in alone if c.kind == "unheard"}
    assert unheard and unheard.search("i did not hear you.")


def test_one_voice_is_in_no_question_of_training() -> None:
    rng = np.random.default_rng(0)
    assert spoken_set.VOICES[-1] not in {Asking.draw(rng).voice for _ in range(2000)}


def test_what_is_no_speech_differs_and_is_never_too_loud() -> None:
    made = [unheard(np.random.default_rng(seed), SAMPLE_RATE) for seed in range(60)]
    assert all(np.isfinite(sound).all() and np.abs(sound).max() <= 1 and sound.dtype == np.float32 for sound in made)
    assert any(not sound.any() for sound in made) and any(np.std(sound) > 0.05 for sound in made)
    assert all(0.3 <= len(sound) / SAMPLE_RATE <= 7.5 for sound in made)
    asking = Asking.draw(np.random.default_rng(1))
    assert np.array_equal(heard("", asking), unheard(np.random.default_rng(asking.seed), SAMPLE_RATE))


def test_a_long_question_is_spoken_fast_enough_for_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(text: str, asking: Asking) -> np.ndarray:
        return np.ones(int(len(text) / asking.speed * 1600), np.float32)

    monkeypatch.setattr(voices, "spoken", slow)
    asking = replace(Asking.draw(np.random.default_rng(0)), speed=1.0, lead=0.4)
    short, long = heard("x" * 70, asking), heard("x" * 120, asking)
    assert len(short) == int(7.4 * SAMPLE_RATE), "as it is asked"
    assert 7.0 * SAMPLE_RATE < len(long) <= voices.LONGEST * SAMPLE_RATE
