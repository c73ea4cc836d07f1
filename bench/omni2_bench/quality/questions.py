"""A set of spoken questions with what a right answer says: a folder of audio files and `questions.jsonl`.

Each line is one conversation: `{"kind": "sums", "turns": [{"audio": "0001.ogg", "question": "…", "answer": "…"}]}`. In
place of `answer`, the words of the one right answer, a turn may have `accept`: a regular expression that every right
answer holds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from omni2_bench.quality.spelling import plain
from omni2_engine.errors import SettingError
from omni2_engine.system.file_content import read_text

INDEX = "questions.jsonl"


@dataclass(frozen=True)
class SpokenTurn:
    """A spoken question.

    Args:
        audio: its recording.
        question: its words.
        answer: the words of the right answer, or None.
        accept: what a right answer holds, if it has no fixed words: searched for in lower case.
    """

    audio: Path
    question: str
    answer: str | None
    accept: re.Pattern[str] | None = None

    def accepts(self, text: str) -> bool:
        """Whether a text is a right answer, spelling and marks aside."""
        if self.accept is not None:
            return self.accept.search(text.lower()) is not None
        return self.answer is not None and plain(text) == plain(self.answer)


@dataclass(frozen=True)
class SpokenConversation:
    """Turns of one session, and what kind of question it is."""

    kind: str
    turns: tuple[SpokenTurn, ...]


def read_questions(folder: Path, most: int | None = None) -> list[SpokenConversation]:
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
            turns = tuple(_turn(folder, turn) for turn in fields["turns"])
            conversations.append(SpokenConversation(fields["kind"], turns))
        except (ValueError, KeyError, TypeError, re.error) as error:
            raise SettingError(
                f"{path}, line {number}: {error!r}", "write it as omni2_bench.quality.questions says"
            ) from error
        if missing := next((turn.audio for turn in turns if not turn.audio.is_file()), None):
            raise SettingError(f"{missing} is missing", f"{path} names it in line {number}")
    if not conversations:
        raise SettingError(f"{path} holds no questions", "give a folder of questions")
    return conversations


def _turn(folder: Path, fields: dict[str, str]) -> SpokenTurn:
    accept = re.compile(fields["accept"]) if "accept" in fields else None
    return SpokenTurn(folder / fields["audio"], fields["question"], None if accept else fields["answer"], accept)
