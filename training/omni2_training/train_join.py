"""Stage `join`: the speech language model learns to use the hidden states of the trained language model."""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from omni2_training.batches import padded
from omni2_training.config import Settings
from omni2_training.domain import Item
from omni2_training.features import Utterance, load_answers
from omni2_training.listening.hear import Heard
from omni2_training.loop import Task, Trainer, load_averaged
from omni2_training.models.listener import IGNORED as SILENT
from omni2_training.models.listener import Listener
from omni2_training.models.speech_lm import IGNORED, layout
from omni2_training.train_llm import LISTENING, make_listener, script
from omni2_training.train_speech_lm import STAGE as SPEECH_LM
from omni2_training.train_speech_lm import make_speech_lm
from omni2_training.train_tokenizer import load_variants
from omni2_training.vocabulary import TextIds
from omni2_training.workspace import Workspace

STAGE = "join"


def train_join(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Train it on the last answers of heard conversations; see `Trainer.run`."""
    c, ids = settings.join, TextIds.load(workspace)
    utterances = load_answers(workspace)
    units = dict(zip((u.text for u in utterances), load_variants(utterances, workspace), strict=True))
    ears = Heard(settings, workspace)
    listener = load_averaged(workspace, LISTENING, make_listener(settings, ids))
    torch.manual_seed(settings.seed)
    model = make_speech_lm(settings, ids)
    load_averaged(workspace, SPEECH_LM, model).train().requires_grad_(True)
    model.freeze_plain_tables()
    spoken = {(held, turns): spoken_items(ears, utterances, held, turns) for held in (False, True) for turns in (1, 2)}

    def losses(items: list[Item], noise: float, rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        hidden, texts = last_answers(listener, ears, ids, items, rng)
        said = [units[item.turns[-1].answer] for item in items]
        rows = [several[rng.integers(len(several)) if rng else 0] for several in said]
        layouts = [
            layout(len(text), row, settings.read, settings.write, model.every)
            for text, row in zip(texts, rows, strict=True)
        ]
        at = padded([laid.text for laid in layouts], -1)
        fed = padded([laid.units for laid in layouts], -1)
        targets = padded([laid.targets for laid in layouts], IGNORED)
        inputs = model.inputs(padded([np.array(t) for t in texts]), hidden, at, model.misheard(fed, noise))
        return model.losses(inputs, targets)

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        turns = 2 if rng.random() < settings.llm.follow_ups and spoken[False, 2] else 1
        chosen = rng.choice(len(spoken[False, turns]), c.batch)
        return losses([spoken[False, turns][i] for i in chosen], settings.speech_lm.noise, rng)

    def validate() -> dict[str, float]:
        held = spoken[True, 1]
        with torch.inference_mode():
            figures = [losses(held[i : i + 8], 0.0) for i in range(0, len(held), 8)]
        return {f"held {name}": float(np.mean([float(f[name]) for f in figures])) for name in figures[0]}

    return Trainer(workspace, Task(STAGE, model, loss, validate), c, settings.seed, console).run()


def spoken_items(ears: Heard, utterances: list[Utterance], held: bool, turns: int) -> list[Item]:
    """Conversations whose last answer was spoken; nothing is learnt from one that is held out, even if it was asked."""
    texts = {u.text for u in utterances if held or not u.held}
    return [item for item in ears.items(held, turns) if item.turns[-1].answer in texts]


@torch.no_grad()
def last_answers(
    listener: Listener, ears: Heard, ids: TextIds, items: list[Item], rng: np.random.Generator | None
) -> tuple[Tensor, list[list[int]]]:
    """Hidden states (B, n, H) that go with the ids of each conversation's last answer, and these ids; see `Heard`."""
    turns = range(len(items[0].turns))
    slots = [listener.heard(torch.stack([ears.features(item, turn, rng) for item in items])) for turn in turns]
    embeds, targets = listener.conversation([script(item, ids) for item in items], slots)
    hidden = listener.hidden(embeds)
    texts = [ids.answer(item.turns[-1].answer) for item in items]
    rows = [h[t != SILENT][-len(text) :] for h, t, text in zip(hidden, targets, texts, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), texts
