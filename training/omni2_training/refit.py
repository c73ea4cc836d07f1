"""Stage `refit`: a voice that stays learns to read the hidden states of a language model that has learnt on.

The fusion is trained to make of the new hidden states what the released one makes of the old ones, at the answers that
the released model gives already. Neither sound nor units are needed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from omni2_engine.errors import CheckpointError
from omni2_export.checkpoint import open_checkpoint
from omni2_export.reference.build import load_fusion, load_speech_lm
from omni2_training.config import Settings
from omni2_training.domain import Item
from omni2_training.listening.hear import Heard
from omni2_training.loop import Task, Trainer, start_path
from omni2_training.models.listener import Listener
from omni2_training.refined import refined_listener
from omni2_training.train_join import last_answers
from omni2_training.train_llm import LISTENING, in_its_words, make_listener
from omni2_training.vocabulary import TextIds
from omni2_training.workspace import Workspace

STAGE = "refit"
BATCH = 16  # conversations that are answered at a time


@dataclass(frozen=True)
class Rows:
    """Text tokens of answers, one a row: (n, H) hidden states before and after, and (n,) ids."""

    before: Tensor
    after: Tensor
    ids: Tensor


def refit_fusion(settings: Settings, workspace: Workspace, console: Console, path: Path) -> bool:
    """Train the fusion; see `Trainer.run`.

    Args:
        path: the directories `omni2` and `decoder` of the model that the run began with.

    Raises:
        CheckpointError: there is no such model, or it answers no question right.
        FileNotFoundError: stage `listen` has not run, or did not begin with a released model.
    """
    released = open_checkpoint(path / "omni2", decoder=path / "decoder")
    ids, ears = TextIds.load(workspace), Heard(settings, workspace)
    before, after = make_listener(settings, ids), refined_listener(settings, workspace)
    before.load_state_dict(torch.load(start_path(workspace, LISTENING), weights_only=True), strict=False)
    before.eval().requires_grad_(False)
    table, teacher = load_speech_lm(released).embed_tokens.weight, load_fusion(released)
    model = copy.deepcopy(teacher).train().requires_grad_(True)
    learnt, held = (
        answered(before, after, ears, ids, in_its_words(ears.items(held, 1), settings.llm.answers))
        for held in (False, True)
    )
    console.print(f"{len(learnt.ids)} tokens of answers that were right before, and {len(held.ids)} held out")

    def distance(rows: Rows, chosen: Tensor) -> Tensor:
        """Of what is fused from what was, in relation to the size of that."""
        embeds = table[rows.ids[chosen]]
        with torch.no_grad():
            wanted = teacher(rows.before[chosen], embeds)
        return (model(rows.after[chosen], embeds) - wanted).square().sum() / wanted.square().sum()

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        return {"loss": distance(learnt, torch.from_numpy(rng.integers(0, len(learnt.ids), settings.refit.batch)))}

    def validate() -> dict[str, float]:
        with torch.inference_mode():
            return {"held distance": float(distance(held, torch.arange(len(held.ids))))}

    return Trainer(workspace, Task(STAGE, model, loss, validate), settings.refit, settings.seed, console).run()


@torch.no_grad()
def answered(before: Listener, after: Listener, ears: Heard, ids: TextIds, items: list[Item]) -> Rows:
    """The tokens of those items' answers that `before` gives of itself.

    Raises:
        CheckpointError: it gives none of them.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        old, texts = last_answers(before, ears, ids, batch, None)
        new, _ = last_answers(after, ears, ids, batch, None)
        likeliest = before.model.lm_head(old).argmax(-1)
        for i, text in enumerate(texts):
            wanted = torch.tensor(text)
            if torch.equal(likeliest[i, : len(text)], wanted):
                found.append((old[i, : len(text)], new[i, : len(text)], wanted))
    if not found:
        raise CheckpointError("the released model answers none of the questions right", "begin with another model")
    columns = [torch.cat(column) for column in zip(*found, strict=True)]
    return Rows(*columns)
