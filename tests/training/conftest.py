"""A workspace of the tiny configuration whose answers are synthetic sounds: no teacher, no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from omni2_training.config import Settings
from omni2_training.features import pack_answers
from omni2_training.synthesise import answers, make_corpus
from omni2_training.vocabulary import make_vocabulary
from omni2_training.workspace import Workspace

FRAME = 600


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings.load("tiny")


@pytest.fixture(scope="session")
def console() -> Console:
    return Console(quiet=True)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, settings: Settings, console: Console) -> Workspace:
    """Corpus, vocabulary, answers, their features, and features of questions: all that training reads."""
    workspace = Workspace(tmp_path_factory.mktemp("training"))
    make_corpus(settings, workspace, console)
    make_vocabulary(settings, workspace)
    rng = np.random.default_rng(0)
    for text in answers(workspace.corpus()):
        durations = rng.integers(1, 6, 12).astype(np.int16)
        frames = int(durations.sum())
        time = np.arange(FRAME * frames) / 24_000
        pitch = np.repeat(rng.choice([0.0, 120.0, 240.0], frames), 2).astype(np.float32)
        wave = 0.3 * np.sin(2 * np.pi * 180 * time) + 0.02 * rng.standard_normal(len(time))
        workspace.save_arrays(
            workspace.answer(text, settings.teacher.name_of(text)),
            pcm=(wave * 20_000).astype(np.int16),
            symbols=rng.integers(43, 90, 12).astype(np.int16),
            durations=durations,
            pitch=pitch,
        )
    pack_answers(settings, workspace, console)
    return workspace


def copy_of(workspace: Workspace, path: Path) -> Workspace:
    """The same workspace elsewhere, for tests that change it."""
    import shutil

    shutil.copytree(workspace.root, path)
    return Workspace(path)
