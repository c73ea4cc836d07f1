"""Stage `speech-lm`: from the answer's text to its units, in rounds of R tokens and W units."""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console

from omni2_training.batches import alike, padded
from omni2_training.config import Settings
from omni2_training.features import load_answers
from omni2_training.loop import Task, Trainer
from omni2_training.models.speech_lm import IGNORED, Layout, SpeechLM, layout
from omni2_training.train_tokenizer import load_units
from omni2_training.vocabulary import TextIds
from omni2_training.workspace import Workspace

STAGE = "speech-lm"


def make_speech_lm(settings: Settings, ids: TextIds) -> SpeechLM:
    """An untrained speech language model."""
    c = settings.speech_lm
    vocab = ids.size + 1 + settings.flow.encoder.units
    config = c.model.decoder(vocab)
    return SpeechLM(config, settings.fusion, settings.tokenizer.model.digits, ids.size, ids.end)


def train_speech_lm(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Train it without the language model: hidden states of zero; see `Trainer.run`."""
    c = settings.speech_lm
    ids = TextIds.load(workspace)
    utterances = load_answers(workspace)
    examples: dict[bool, list[tuple[list[int], Layout]]] = {False: [], True: []}
    for u, units in zip(utterances, load_units(utterances, workspace), strict=True):
        text = ids.answer(u.text)
        laid = layout(len(text), units, settings.read, settings.write, settings.flow.encoder.units)
        examples[u.held].append((text, laid))
    learnt, held = examples[False], examples[True]
    lengths = [len(laid.text) for _, laid in learnt]
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
        return losses([learnt[i] for i in alike(lengths, c.schedule.batch, rng)], c.noise)

    def validate() -> dict[str, float]:
        model.eval()
        with torch.inference_mode():
            figures = [losses(held[i : i + 8], 0.0) for i in range(0, len(held), 8)]
        model.train()
        return {f"held {name}": float(np.mean([float(f[name]) for f in figures])) for name in figures[0]}

    return Trainer(workspace, Task(STAGE, model, loss, validate), c.schedule, settings.seed, console).run()
