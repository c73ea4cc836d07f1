"""Command `refine`: a released model goes on learning to understand, and keeps its voice."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from omni2_training.adopt import adopt_understanding
from omni2_training.config import Settings
from omni2_training.listening.hear import hear_questions
from omni2_training.loop import start_path
from omni2_training.quiet import lowest_priority
from omni2_training.refit import refit_fusion
from omni2_training.released import export
from omni2_training.synthesise import make_corpus
from omni2_training.train_llm import LISTENING, train_listening
from omni2_training.workspace import Workspace


def refine(settings: Settings, workspace: Workspace, console: Console, path: Path) -> bool:
    """Go on learning from a released model, and write `released/`.

    Args:
        workspace: of this purpose alone: its vocabulary is the model's.
        path: the directories `omni2` and `decoder` of that model, of the dimensions of `settings`.

    Returns:
        Whether the end was reached; if not, the next run goes on.

    Raises:
        CheckpointError: there is no such model.
    """
    lowest_priority()
    if not workspace.path("corpus.jsonl").is_file():
        make_corpus(settings, workspace, console)
    if not start_path(workspace, LISTENING).is_file():
        adopt_understanding(workspace, console, path)
    done = (
        hear_questions(settings, workspace, console)
        and train_listening(settings, workspace, console)
        and refit_fusion(settings, workspace, console, path)
    )
    if done:
        export(settings, workspace, console, voice=path)
    return done
