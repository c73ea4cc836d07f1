"""Stage `flow`: units to mel, on whole answers and on their beginnings, as calls of a stream see them."""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console

from omni2_training.batches import alike, as_tensor
from omni2_training.config import Settings
from omni2_training.features import load_answers
from omni2_training.loop import Task, Trainer
from omni2_training.models.unit_flow import UnitFlow
from omni2_training.train_tokenizer import load_units
from omni2_training.workspace import Workspace

STAGE = "flow"
PARTIAL = 0.5  # share of the batches that end within the utterance
SHORTEST = 8  # units of a beginning: fewer are never voiced


def make_flow(settings: Settings) -> UnitFlow:
    """An untrained flow."""
    c = settings.flow
    return UnitFlow(c.encoder, c.estimator, settings.tokenizer.model.digits, c.scale)


def train_flow(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Train it; see `Trainer.run`."""
    c = settings.flow
    utterances = load_answers(workspace)
    pairs = [(u, units) for u, units in zip(utterances, load_units(utterances, workspace), strict=True)]
    learnt = [(u, units) for u, units in pairs if not u.held]
    held = [(u, units) for u, units in pairs if u.held][:60]
    lengths = [u.units for u, _ in learnt]
    torch.manual_seed(settings.seed)
    model = make_flow(settings)

    def loss(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = [learnt[i] for i in alike(lengths, c.schedule.batch, rng)]
        count = min(u.units for u, _ in chosen)
        partial = bool(rng.random() < PARTIAL) and count > SHORTEST
        if partial:
            count = int(rng.integers(SHORTEST, count + 1))
        units = as_tensor(np.stack([row[:count] for _, row in chosen]))
        mel = as_tensor(np.stack([u.mel[: model.ratio * count] for u, _ in chosen])).transpose(1, 2)
        return model.losses(units, mel, partial)

    def validate() -> dict[str, float]:
        flow = model.export()
        generator = torch.Generator().manual_seed(0)
        distances, priors = [], []
        for u, row in held:
            units, mel = as_tensor(row)[None], as_tensor(u.mel).T[None]
            noise = torch.randn(mel.shape, generator=generator)
            with torch.inference_mode():
                mu = flow.mean(units)
                speaker = flow.spk_embed_affine_layer.bias[None]
                distances.append(float((flow.decoder(noise, mu, speaker) / c.scale - mel).abs().mean()))
                priors.append(float((mu / c.scale - mel).abs().mean()))
        return {"held mel": float(np.mean(distances)), "held prior": float(np.mean(priors))}

    return Trainer(workspace, Task(STAGE, model, loss, validate), c.schedule, settings.seed, console).run()
