"""Stage `speech-lm`: from the answer's text to its units, in rounds of R tokens and W units."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import torch
from rich.console import Console

from omni2_training.batches import alike, padded
from omni2_training.config import Settings
from omni2_training.features import load_answers
from omni2_training.loop import Task, Trainer
from omni2_training.models.speech_lm import IGNORED, Layout, SpeechLM, layout
from omni2_training.train_tokenizer import load_variants
from omni2_training.vocabulary import TextIds
from omni2_training.workspace import Workspace

STAGE = "speech-lm"


def make_speech_lm(settings: Settings, ids: TextIds) -> SpeechLM:
    """An untrained speech language model."""
    c = settings.speech_lm
    vocab = ids.size + 1 + settings.flow.encoder.units
    config = c.model.decoder(vocab)
    digits = settings.tokenizer.model.digits
    return SpeechLM(config, settings.fusion, digits, ids.size, ids.end, settings.speech_lm.dropout)


def train_speech_lm(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Train it without the language model: hidden states of zero; see `Trainer.run`."""
    c = settings.speech_lm
    ids = TextIds.load(workspace)
    utterances = load_answers(workspace)
    learnt: list[tuple[list[int], list[Layout]]] = []
    held: list[tuple[list[int], Layout]] = []
    asked = Counter(turn.answer for item in workspace.corpus().train for turn in item.turns)
    for u, variants in zip(utterances, load_variants(utterances, workspace), strict=True):
        text = ids.answer(u.text)
        every = settings.flow.encoder.units
        laid = [layout(len(text), units, settings.read, settings.write, every) for units in variants]
        if u.held:
            held.append((text, laid[0]))
        else:
            # Several questions have the same answer: it is learnt more often, if not as often as it is given.
            learnt += [(text, laid)] * round(math.sqrt(asked[u.text]))
    lengths = [len(laid[0].text) for _, laid in learnt]
    torch.manual_seed(settings.seed)
    model = make_speech_lm(settings, ids)

    def losses(chosen: list[tuple[list[int], Layout]], noise: float) -> dict[str, torch.Tensor]:
        text = padded([np.array(row) for row, _ in chosen])
        at = padded([laid.text for _, laid in chosen], -1)
        units = padded([laid.units for _, laid in chosen], -1)
        targets = padded([laid.targets for _, laid in chosen], IGNORED)
        hidden = torch.zeros(*text.shape, settings.fusion.llm_hidden)
        return model.losses(model.inputs(text, hidden, at, model.misheard(units, noise)), targets)

    def loss(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = [learnt[i] for i in alike(lengths, c.schedule.batch, rng)]
        return losses([(text, laid[rng.integers(len(laid))]) for text, laid in chosen], c.noise)

    def validate() -> dict[str, float]:
        with torch.inference_mode():
            figures = [losses(held[i : i + 8], 0.0) for i in range(0, len(held), 8)]
        return {f"held {name}": float(np.mean([float(f[name]) for f in figures])) for name in figures[0]}

    return Trainer(workspace, Task(STAGE, model, loss, validate), c.schedule, settings.seed, console).run()
