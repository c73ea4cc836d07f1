"""Stage `questions`: every question is asked and heard by the frozen encoder; what it hears is kept."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from omni2_export.reference.frontend import log_mel
from omni2_training.config import Settings
from omni2_training.domain import Corpus, Item
from omni2_training.domain.corpus import held_out
from omni2_training.domain.exercises import drawn
from omni2_training.domain.item import share
from omni2_training.domain.silence import draw_silence
from omni2_training.domain.talk import draw_common
from omni2_training.listening.voices import Asking, heard
from omni2_training.listening.whisper_weights import load_encoder
from omni2_training.models.precision import bfloat16
from omni2_training.quiet import StopRequest, pause_while_measured
from omni2_training.workspace import Workspace, digest

SHARD = 64  # questions of one file
NEW, SILENT, COMMON = 1, 2, 3  # of the random numbers of each series beside the corpus, with the seed
REPORT = 8  # shards between two lines of progress


@dataclass(frozen=True)
class Question:
    """One spoken turn: which, and how it is asked."""

    item: Item
    turn: int
    held: bool
    asking: Asking


def questions(corpus: Corpus, seed: int, ways: int = 1) -> list[Question]:
    """Every turn of the corpus, its voice drawn from the seed and its own words; in mixed order.

    Args:
        ways: how many ways every turn to train is asked in, all of one way before the next; held-out ones have one.
    """
    out: list[Question] = []
    for way in range(ways):
        again = f" {way}" if way else ""
        asked = []
        for held, items in ((True, [] if way else corpus.test), (False, corpus.train)):
            for number, item in enumerate(items):
                for turn, said in enumerate(item.turns):
                    key = int(share(f"{seed} {number} {held} {turn} {said.question}{again}") * 2**53)
                    asked.append(Question(item, turn, held, Asking.draw(np.random.default_rng(key))))
        out += sorted(asked, key=lambda q: share(f"{q.item.turns[q.turn].question} {q.asking.seed}"))
    return out


def new_questions(settings: Settings, count: int) -> list[Question]:
    """Questions that the corpus lacks, exercises among them; the first ones are the same for every larger `count`."""
    rng = np.random.default_rng((settings.seed, NEW))
    out: list[Question] = []
    while len(out) < count:
        turns = 2 if rng.random() < settings.llm.follow_ups / 2 else 1  # each of the first has two questions
        [item] = drawn(settings.corpus.sizes, turns, 1, rng)
        out += [Question(item, turn, False, Asking.draw(rng)) for turn in range(turns)]
    return out[:count]


def common_questions(settings: Settings, count: int) -> list[Question]:
    """Greetings and the like, again and again; the first ones are the same for every larger `count`."""
    rng = np.random.default_rng((settings.seed, COMMON))
    chance = random.Random(settings.seed)
    out: list[Question] = []
    while len(out) < count:
        item = draw_common(chance)
        if not held_out(item):
            out.append(Question(item, 0, False, Asking.draw(rng)))
    return out


def silent_turns(settings: Settings, count: int) -> list[Question]:
    """Turns without a word: silence, noise, music; the first ones are the same for every larger `count`."""
    rng = np.random.default_rng((settings.seed, SILENT))
    item = draw_silence(random.Random(0))
    return [Question(item, 0, False, Asking.draw(rng)) for _ in range(count)]


def heard_shards(settings: Settings, workspace: Workspace) -> list[tuple[Path, list[Question]]]:
    """All questions of a run and the file in which each few of them are kept: the corpus', new, common and silent ones.

    A folder is named by what its questions and their features depend on, so that each kind may become more, behind what
    there is, and no others are taken for them.
    """
    c = settings.listening
    corpus = workspace.path("corpus.jsonl").read_text(encoding="utf-8")
    series = (
        (f"{corpus} {settings.seed} {c.encoder}", questions(workspace.corpus(), settings.seed, c.ways)),
        (f"{new_questions(settings, SHARD)} {c.encoder}", new_questions(settings, c.more)),
        (f"{common_questions(settings, SHARD)} {c.encoder}", common_questions(settings, c.common)),
        (f"{silent_turns(settings, SHARD)} {c.encoder}", silent_turns(settings, c.silent)),
    )
    return [
        (workspace.path("questions", digest(key), f"{start // SHARD:04d}.npy"), asked[start : start + SHARD])
        for key, asked in series
        for start in range(0, len(asked), SHARD)
    ]


def hear_questions(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Write `questions/…/NNNN.npy`, (n, positions, stack · width) float16, what is not there yet.

    Returns:
        Whether all is there; False when it was told to stop.
    """
    stop = StopRequest()
    torch.set_num_threads(1)
    config = settings.listening.encoder
    encoder = load_encoder(config)
    shards = heard_shards(settings, workspace)
    for number, (path, asked) in enumerate(shards, 1):
        if path.is_file() and len(np.load(path, mmap_mode="r")) >= len(asked):
            continue  # fewer: it was the last one of a run with fewer of them
        rows: list[NDArray[np.float16]] = []
        for question in asked:
            pause_while_measured(stop)
            if stop:
                return False
            audio = heard(question.item.turns[question.turn].question, question.asking)
            with torch.inference_mode(), bfloat16():
                features = encoder.encode(log_mel(torch.from_numpy(audio), config)[None])[0]
            rows.append(features[: config.positions * config.stack].reshape(config.positions, -1).half().numpy())
        whole = np.stack(rows)
        workspace.write(path, lambda unfinished, whole=whole: _save(unfinished, whole))
        if number % REPORT == 0:
            console.print(f"  {number} of {len(shards)} files of {SHARD} questions heard")
    return True


def _save(path: Path, array: NDArray[np.float16]) -> None:
    with path.open("wb") as file:  # given a name, numpy would add a suffix
        np.save(file, array)


class Heard:
    """What stage `questions` wrote: features of every question that has been heard so far."""

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        self._shards: list[NDArray[np.float16]] = []
        self._places: dict[tuple[tuple[str, ...], int], list[tuple[int, int]]] = {}
        found: dict[tuple[str, ...], tuple[Item, bool, list[int]]] = {}
        for path, asked in heard_shards(settings, workspace):
            if not path.is_file():
                continue
            shard = np.load(path, mmap_mode="r")
            self._shards.append(shard)
            for row, question in enumerate(asked[: len(shard)]):
                key = _key(question.item)
                self._places.setdefault((key, question.turn), []).append((len(self._shards) - 1, row))
                found.setdefault(key, (question.item, question.held, []))[2].append(question.turn)
        self._items: dict[tuple[bool, int], list[Item]] = {(held, n): [] for held in (False, True) for n in (1, 2)}
        for item, held, turns in found.values():
            times = min(turns.count(turn) for turn in range(len(item.turns)))
            self._items[held, len(item.turns)] += [item] * times

    def items(self, held: bool, turns: int) -> list[Item]:
        """Items with this number of turns, each as often as all of its questions have been heard."""
        return self._items[held, turns]

    def features(self, item: Item, turn: int, rng: np.random.Generator | None = None) -> torch.Tensor:
        """(positions, stack · width) float32 of a question, asked in a way that `rng` draws, or in the first."""
        places = self._places[_key(item), turn]
        shard, row = places[int(rng.integers(len(places))) if rng else 0]
        return torch.from_numpy(self._shards[shard][row].astype(np.float32))


def _key(item: Item) -> tuple[str, ...]:
    return tuple(turn.question for turn in item.turns)
