"""Stages `llm` and `listen`: answers to questions, first read as text, then heard."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from omni2_training.config import LLMSettings, Settings
from omni2_training.domain import Item, Turn
from omni2_training.domain.exercises import conversations, joined, parts
from omni2_training.domain.item import sentence
from omni2_training.domain.typed import typed
from omni2_training.listening.hear import Heard
from omni2_training.loop import Task, Trainer, load_averaged, start_path
from omni2_training.models.listener import Listener, Script
from omni2_training.vocabulary import TextIds
from omni2_training.workspace import Workspace

READING, LISTENING = "llm", "listen"
USER, ANSWER = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"


def make_listener(settings: Settings, ids: TextIds) -> Listener:
    """An untrained language model with its projector."""
    return Listener(settings.llm.model.decoder(ids.size), settings.listening.encoder, settings.llm.dropout)


def script(item: Item, ids: TextIds) -> Script:
    """A conversation as ids, as the chat template renders it."""
    encode = ids.tokenizer.encode
    before = [encode(USER if turn == 0 else "\n" + USER) for turn in range(len(item.turns))]
    return Script(before, encode(ANSWER), [ids.answer(turn.answer) for turn in item.turns])


def read_losses(model: Listener, ids: TextIds, items: list[Item]) -> dict[str, Tensor]:
    """Losses of conversations that are read where they will be heard."""
    turns = range(len(items[0].turns))
    slots = [model.read([ids.tokenizer.encode(item.turns[t].question) for item in items]) for t in turns]
    return model.answer_losses(*model.conversation([script(item, ids) for item in items], slots))


def typed_losses(model: Listener, ids: TextIds, items: list[Item], chance: random.Random) -> dict[str, Tensor]:
    """Losses of conversations whose questions are typed; `chance` decides in which spelling."""
    slots: list[list[Tensor]] = []
    for turn in range(len(items[0].turns)):
        questions = [ids.tokenizer.encode(typed(item.turns[turn].question, chance)) for item in items]
        slots.append([model.typed(question) if question else model.read([question])[0] for question in questions])
    return model.answer_losses(*model.conversation([script(item, ids) for item in items], slots))


def train_llm(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Stage `llm`: on text alone, new conversations in every step; see `Trainer.run`."""
    ids, c = TextIds.load(workspace), settings.llm
    torch.manual_seed(settings.seed)
    model = make_listener(settings, ids)
    test = in_its_words(workspace.corpus().test, c.answers)

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        losses = text_losses(model, ids, settings, rng)
        return {"loss": losses["answer"], **losses}

    def validate() -> dict[str, float]:
        return by_turns(test, lambda items: read_losses(model, ids, items))

    return Trainer(workspace, Task(READING, model, loss, validate), c.reading, settings.seed, console).run()


def text_losses(model: Listener, ids: TextIds, settings: Settings, rng: np.random.Generator) -> dict[str, Tensor]:
    """Losses of a batch of new conversations, read or typed."""
    c = settings.llm
    turns = turns_of(c, rng)
    drawn = conversations(settings.corpus.sizes, turns, c.follow_ups, max(1, c.reading.batch // turns), rng)
    items = in_its_words(drawn, c.answers)
    if rng.random() < c.typed_share:
        return typed_losses(model, ids, items, random.Random(int(rng.integers(2**62))))
    return read_losses(model, ids, items)


def train_listening(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Stage `listen`: projector and language model together, on what the encoder heard; see `Trainer.run`."""
    ids, c = TextIds.load(workspace), settings.llm
    torch.manual_seed(settings.seed)
    model = make_listener(settings, ids)
    if not start_path(workspace, LISTENING).is_file():
        load_averaged(workspace, READING, model).train().requires_grad_(True)
    ears = Heard(settings, workspace)
    learnt = {turns: Pool(in_its_words(ears.items(held=False, turns=turns), c.answers)) for turns in (1, 2)}

    def heard_losses(said: list[list[Item]], noise: float, rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        """Of conversations, each of one item or of several with the same number of turns in all."""
        slots, spelled = [], []
        places = [[(item, turn) for item in items for turn in range(len(item.turns))] for items in said]
        for asked in zip(*places, strict=True):
            features = torch.stack([ears.features(item, turn, rng) for item, turn in asked])
            slots.append(model.heard(features + torch.randn_like(features) * noise if noise else features))
            questions = [ids.tokenizer.encode(item.turns[turn].question) for item, turn in asked]
            spelled.append(model.transcript_loss(slots[-1], questions))
        losses = model.answer_losses(*model.conversation([script(joined(items), ids) for items in said], slots))
        return losses | {"transcript": torch.stack(spelled).mean()}

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        if rng.random() < c.read_share:
            return {"loss": text_losses(model, ids, settings, rng)["answer"]}
        turns = turns_of(c, rng)
        said = [
            parts(turns, c.follow_ups, rng, lambda length: learnt[length].draw(rng))
            for _ in range(max(1, c.listening.batch // turns))
        ]
        losses = heard_losses(said, c.noise, rng)
        total = losses["answer"] + c.transcript_weight * losses["transcript"]
        return {"loss": total, **losses}

    def validate() -> dict[str, float]:
        held = [item for turns in (1, 2) for item in ears.items(held=True, turns=turns)]
        return by_turns(in_its_words(held, c.answers), lambda items: heard_losses([[item] for item in items], 0.0))

    return Trainer(workspace, Task(LISTENING, model, loss, validate), c.listening, settings.seed, console).run()


def in_its_words(items: list[Item], answers: dict[str, str]) -> list[Item]:
    """The items with those answers that the voice has not learnt replaced; see `LLMSettings.answers`."""

    def instead(answer: str) -> str:
        for pattern, other in answers.items():
            if not (found := re.fullmatch(pattern, answer)):
                continue
            if found.re.groups and found.start(1) == 0:  # its first word may come to stand elsewhere
                found = re.fullmatch(pattern, answer[:1].lower() + answer[1:]) or found
            return sentence(found.expand(other))
        return answer

    return [replace(i, turns=tuple(Turn(t.question, instead(t.answer)) for t in i.turns)) for i in items]


class Pool:
    """Items that are drawn by kind: a kind comes as often as the square root of the number of its items."""

    def __init__(self, items: list[Item]) -> None:
        self._items = items
        counts = Counter(item.kind for item in items)
        self._ends = np.cumsum([counts[item.kind] ** -0.5 for item in items])

    def draw(self, rng: np.random.Generator) -> Item:
        """One item."""
        return self._items[int(np.searchsorted(self._ends, rng.random() * self._ends[-1], side="right"))]


def turns_of(c: LLMSettings, rng: np.random.Generator) -> int:
    """How many turns the conversations of a batch have."""
    return int(rng.choice(len(c.turns), p=c.turns)) + 1


def by_turns(items: list[Item], losses: Callable[[list[Item]], dict[str, Tensor]]) -> dict[str, float]:
    """Mean losses over items, in batches of one number of turns; and the share of exact answers of every kind."""
    sums: dict[str, list[float]] = {}
    for kind in dict.fromkeys(item.kind for item in items):
        chosen = [item for item in items if item.kind == kind]
        for start in range(0, len(chosen), 16):
            batch = chosen[start : start + 16]
            with torch.inference_mode():
                found = {name: float(value) for name, value in losses(batch).items()}
            for name, value in found.items():
                sums.setdefault(f"held {name}", []).extend([value] * len(batch))
            sums.setdefault(f"exact {kind}", []).extend([found["exact"]] * len(batch))
    return {name: float(np.mean(values)) for name, values in sums.items()}
