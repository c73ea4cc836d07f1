"""Stages `llm` and `listen`: answers to questions, first read as text, then heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from omni2_training.config import LLMSettings, Settings
from omni2_training.domain import Item
from omni2_training.domain.exercises import drawn
from omni2_training.listening.hear import Heard
from omni2_training.loop import Task, Trainer, load_averaged
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
    """Losses of conversations that are read."""
    turns = range(len(items[0].turns))
    slots = [model.read([ids.tokenizer.encode(item.turns[t].question) for item in items]) for t in turns]
    return model.answer_losses(*model.conversation([script(item, ids) for item in items], slots))


def train_llm(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Stage `llm`: on text alone, new conversations in every step; see `Trainer.run`."""
    ids, c = TextIds.load(workspace), settings.llm
    torch.manual_seed(settings.seed)
    model = make_listener(settings, ids)
    test = workspace.corpus().test

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        items = drawn(settings.corpus.sizes, turns_of(c, rng), c.reading.batch, rng)
        losses = read_losses(model, ids, items)
        return {"loss": losses["answer"], **losses}

    def validate() -> dict[str, float]:
        return by_turns(test, lambda items: read_losses(model, ids, items))

    return Trainer(workspace, Task(READING, model, loss, validate), c.reading, settings.seed, console).run()


def train_listening(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Stage `listen`: projector and language model together, on what the encoder heard; see `Trainer.run`."""
    ids, c = TextIds.load(workspace), settings.llm
    torch.manual_seed(settings.seed)
    model = make_listener(settings, ids)
    load_averaged(workspace, READING, model).train().requires_grad_(True)
    ears = Heard(settings, workspace)
    chances = {turns: evened([item.kind for item in ears.items(held=False, turns=turns)]) for turns in (1, 2)}

    def heard_losses(items: list[Item], noise: float, rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        slots, spelled = [], []
        for turn in range(len(items[0].turns)):
            features = torch.stack([ears.features(item, turn, rng) for item in items])
            slots.append(model.heard(features + torch.randn_like(features) * noise))
            questions = [ids.tokenizer.encode(item.turns[turn].question) for item in items]
            spelled.append(model.transcript_loss(slots[-1], questions))
        losses = model.answer_losses(*model.conversation([script(item, ids) for item in items], slots))
        return losses | {"transcript": torch.stack(spelled).mean()}

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        turns = turns_of(c, rng)
        if rng.random() < c.read_share:
            losses = read_losses(model, ids, drawn(settings.corpus.sizes, turns, c.reading.batch, rng))
            return {"loss": losses["answer"]}
        learnt = ears.items(held=False, turns=turns)
        chosen = [learnt[i] for i in rng.choice(len(learnt), c.listening.batch, p=chances[turns])]
        losses = heard_losses(chosen, c.noise, rng)
        total = losses["answer"] + c.transcript_weight * losses["transcript"]
        return {"loss": total, **losses}

    def validate() -> dict[str, float]:
        return by_turns([i for n in (1, 2) for i in ears.items(held=True, turns=n)], lambda i: heard_losses(i, 0.0))

    return Trainer(workspace, Task(LISTENING, model, loss, validate), c.listening, settings.seed, console).run()


def evened(kinds: list[str]) -> NDArray[np.float64]:
    """Chance of every item, (n,): a kind comes as often as the square root of its items."""
    counts = Counter(kinds)
    weights = np.array([counts[kind] ** -0.5 for kind in kinds])
    return weights / weights.sum()


def turns_of(c: LLMSettings, rng: np.random.Generator) -> int:
    """One turn or two, for a batch."""
    return 2 if rng.random() < c.follow_ups else 1


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
