"""Stage `answers`: the teacher speaks every answer of the corpus once."""

from __future__ import annotations

from itertools import zip_longest

from rich.console import Console

from omni2_training.config import Settings
from omni2_training.domain import Corpus, draw_corpus
from omni2_training.domain.item import share
from omni2_training.quiet import StopRequest, pause_while_measured
from omni2_training.teacher.kokoro import SAMPLE_RATE, Kokoro
from omni2_training.teacher.package import voice_file
from omni2_training.workspace import Workspace

REPORT = 50  # sentences between two lines of progress


def make_corpus(settings: Settings, workspace: Workspace, console: Console) -> None:
    """Stage `corpus`: draw all texts."""
    corpus = draw_corpus(settings.corpus.sizes, settings.corpus.test_share, settings.seed)
    workspace.save_corpus(corpus)
    for kind, (train, test) in corpus.counts().items():
        console.print(f"  {kind:<18s} {train:5d} to train, {test:4d} to test")
    console.print(f"{len(answers(corpus))} different answers")


def answers(corpus: Corpus) -> list[str]:
    """All different answers, one of each kind in turn, so that kinds that have few are soon complete."""
    by_kind: dict[str, list[str]] = {}
    for item in (*corpus.test, *corpus.train):
        by_kind.setdefault(item.kind, []).extend(turn.answer for turn in item.turns)
    unique = [sorted(dict.fromkeys(texts), key=share) for texts in by_kind.values()]
    return list(dict.fromkeys(text for row in zip_longest(*unique) for text in row if text is not None))


def speak_answers(settings: Settings, workspace: Workspace, console: Console, part: tuple[int, int] = (0, 1)) -> bool:
    """Synthesise what is not there yet.

    Args:
        part: (i, n) takes every n-th sentence from the i-th on, for n processes side by side.

    Returns:
        Whether all is there; False when it was told to stop.
    """
    stop = StopRequest()
    voice = voice_file(workspace, settings.teacher.voice)
    teacher = Kokoro(workspace.path("cache", "kokoro.onnx").parent, voice)
    texts = answers(workspace.corpus())
    paths = {text: workspace.answer(text, settings.teacher.name_of(text)) for text in texts}
    missing = [text for text in texts[part[0] :: part[1]] if not paths[text].is_file()]
    console.print(f"{len(missing)} of {len(texts)} answers to speak")
    seconds = 0.0
    for done, text in enumerate(missing):
        pause_while_measured(stop)
        if stop:
            return False
        speech = teacher.say(text, settings.teacher.speed_of(text))
        workspace.save_arrays(paths[text], **vars(speech))
        seconds += len(speech.pcm) / SAMPLE_RATE
        if done % REPORT == REPORT - 1:
            console.print(f"  {done + 1} of {len(missing)} answers, {seconds / 60:.1f} minutes of speech")
    return True
