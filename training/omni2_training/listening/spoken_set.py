"""Stage `set`: questions as audio files, for `omni2-engine bench quality`, in three folders.

- `questions`: the corpus' held-out conversations, in the voices and noises of training;
- `own_words`: questions in other people's words (`domain/others.yaml`), each in four voices, of which training has
  never heard the last;
- `conversations`: the same recordings, eight in a row.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.console import Console

from omni2_bench.quality.questions import INDEX
from omni2_training.config import Settings
from omni2_training.domain import Item
from omni2_training.domain.others import OTHERS
from omni2_training.listening.hear import questions
from omni2_training.listening.unheard import unheard
from omni2_training.listening.voices import SAMPLE_RATE, Asking, heard, spoken
from omni2_training.teacher.kokoro import SAMPLE_RATE as TEACHER_RATE
from omni2_training.teacher.kokoro import Kokoro
from omni2_training.teacher.package import voice_file
from omni2_training.workspace import Workspace

QUESTIONS, OWN_WORDS, CONVERSATIONS = "questions", "own_words", "conversations"
VOICES = ("flite:slt", "flite:rms", "espeak:en-us", "kokoro:am_michael")  # the last is in no question of training
TURNS, EACH = 8, 2  # of a conversation, and conversations of every voice
LEVEL = 0.08  # RMS of a question in a person's own words
CLEAN = Asking(voice="", speed=1.0, pitch=50, level=LEVEL, snr=60.0, tilt=0.0, lead=0.0, seed=0)
Floats = NDArray[np.float32]
Say = Callable[[str, str], Floats]  # words and a voice → 16 kHz


@dataclass
class Folder:
    """A set that is being written: audio files, and a line for every conversation."""

    path: Path
    lines: list[str]

    @classmethod
    def empty(cls, workspace: Workspace, name: str) -> Folder:
        """A folder below `set/` without the audio files of an earlier run."""
        path = workspace.path("set", name, INDEX).parent
        for old in path.glob("*.ogg"):
            old.unlink()
        return cls(path, [])

    def record(self, name: str, audio: Floats) -> str:
        """Write an audio file; returns its name."""
        soundfile.write(self.path / f"{name}.ogg", audio, SAMPLE_RATE, format="OGG", subtype="OPUS")
        return f"{name}.ogg"

    def add(self, kind: str, turns: list[dict[str, str]]) -> None:
        """Add a conversation."""
        self.lines.append(json.dumps({"kind": kind, "turns": turns}, ensure_ascii=False))

    def close(self, workspace: Workspace, console: Console) -> None:
        """Write the index."""
        text = "\n".join(self.lines) + "\n"
        workspace.write(self.path / INDEX, lambda path: path.write_text(text, encoding="utf-8"))
        console.print(f"{len(self.lines)} conversations in {self.path}")


def write_set(settings: Settings, workspace: Workspace, console: Console, every: int = 1) -> Path:
    """Write `set/questions`: `questions.jsonl` and an Ogg file of every turn, asked as in stage `questions`.

    Args:
        every: of each kind, the first held-out conversation of every run of this length.
    """
    corpus = workspace.corpus()
    asking: dict[tuple[Item, int], Asking] = {
        (q.item, q.turn): q.asking for q in questions(corpus, settings.seed) if q.held
    }
    folder = Folder.empty(workspace, QUESTIONS)
    seen: Counter[str] = Counter()
    for item in corpus.test:
        seen[item.kind] += 1
        if (seen[item.kind] - 1) % every:
            continue
        turns = []
        for number, turn in enumerate(item.turns):
            name = folder.record(f"{len(folder.lines):03d}-{number}", heard(turn.question, asking[item, number]))
            turns.append({"audio": name, "question": turn.question, "answer": turn.answer})
        folder.add(item.kind, turns)
    folder.close(workspace, console)
    return folder.path


def write_own_words(workspace: Workspace, console: Console, say: Say | None = None) -> Path:
    """Write `set/own_words`, and `set/conversations` of the same recordings.

    Args:
        say: speaks; by default the synthesisers of `VOICES`.
    """
    speak = say or _speaker(workspace)
    words, talks = Folder.empty(workspace, OWN_WORDS), Folder.empty(workspace, CONVERSATIONS)
    for v, voice in enumerate(VOICES):
        asked: list[dict[str, str]] = []
        for number, other in enumerate(OTHERS):
            if other.ask:
                audio = speak(other.ask, voice)
                audio = audio * (LEVEL / max(float(np.sqrt(np.mean(audio**2))), 1e-6))
            else:
                audio = unheard(np.random.default_rng(v), SAMPLE_RATE)
            name = words.record(f"{number:02d}-{v}", np.clip(audio, -1, 1).astype(np.float32))
            turn = {"audio": name, "question": other.ask, "accept": other.accept}
            words.add(other.kind, [turn])
            asked.append(turn | {"audio": f"../{OWN_WORDS}/{name}"})
        chance = random.Random(v)
        for _ in range(EACH):
            talks.add("mixed", chance.sample(asked, TURNS))
    words.close(workspace, console)
    talks.close(workspace, console)
    return words.path


def _speaker(workspace: Workspace) -> Say:
    teachers: dict[str, Kokoro] = {}

    def say(text: str, voice: str) -> Floats:
        engine, _, name = voice.partition(":")
        if engine != "kokoro":
            return spoken(text, replace(CLEAN, voice=voice))
        if name not in teachers:
            cache = workspace.path("cache", "kokoro.onnx").parent
            teachers[name] = Kokoro(cache, voice_file(workspace, name))
        pcm = teachers[name].say(text).pcm.astype(np.float32) / 32768
        return np.asarray(soxr.resample(pcm, TEACHER_RATE, SAMPLE_RATE), np.float32)

    return say
