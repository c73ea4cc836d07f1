"""A set of spoken questions with what a right answer says: a folder of audio files and `questions.jsonl`.

Each line is one conversation: `{"kind": "sums", "turns": [{"audio": "0001.ogg", "question": "…", "answer": "…"}]}`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from omni2_engine.errors import SettingError
from omni2_engine.file_content import read_text

INDEX = "questions.jsonl"


@dataclass(frozen=True)
class Turn:
    """A spoken question: its audio file, its words, and the words of a right answer."""

    audio: Path
    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """Turns of one session, and what kind of question it is."""

    kind: str
    turns: tuple[Turn, ...]


def read_questions(folder: Path, most: int | None = None) -> list[Conversation]:
    """Read a set.

    Args:
        most: conversations, from the first on; all if None.

    Raises:
        SettingError: there is no set, or a line or file of it is broken.
    """
    path = folder / INDEX
    try:
        lines = read_text(path).splitlines()[:most]
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}", "give a folder of questions") from error
    conversations = []
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            turns = tuple(Turn(folder / t["audio"], t["question"], t["answer"]) for t in fields["turns"])
            conversations.append(Conversation(fields["kind"], turns))
        except (ValueError, KeyError, TypeError) as error:
            raise SettingError(
                f"{path}, line {number}: {error!r}", "write it as omni2_bench.quality.questions says"
            ) from error
        if missing := next((turn.audio for turn in turns if not turn.audio.is_file()), None):
            raise SettingError(f"{missing} is missing", f"{path} names it in line {number}")
    if not conversations:
        raise SettingError(f"{path} holds no questions", "give a folder of questions")
    return conversations
