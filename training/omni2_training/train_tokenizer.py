"""Stage `tokenizer`: units that keep the phonemes and the coarse mel."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from omni2_training.batches import as_tensor, crops
from omni2_training.config import Settings
from omni2_training.features import Utterance, load_answers
from omni2_training.loop import Task, Trainer, load_averaged
from omni2_training.mel import BINS
from omni2_training.models.tokenizer import Decoded, UnitTokenizer
from omni2_training.variants import variant
from omni2_training.workspace import Workspace

STAGE = "tokenizer"
PHONES = 178  # ids of the teacher's alphabet
MARKS = (16, 156, 157)  # space and the two stress marks: no sounds, so their frames count for the neighbours only


def make_tokenizer(settings: Settings) -> UnitTokenizer:
    """An untrained tokenizer."""
    return UnitTokenizer(settings.tokenizer.model, BINS, PHONES)


def train_tokenizer(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Train it; see `Trainer.run`."""
    c = settings.tokenizer
    utterances = load_answers(workspace)
    learnt = [u for u in utterances if not u.held]
    held = [u for u in utterances if u.held][:100]
    torch.manual_seed(settings.seed)
    model = make_tokenizer(settings)

    def losses(decoded: Decoded, mel: Tensor, phones: Tensor) -> dict[str, Tensor]:
        sounding = ~torch.isin(phones, torch.tensor(MARKS))
        spelled = F.cross_entropy(decoded.phones[sounding], phones[sounding])
        spectrum = (decoded.mel - mel).abs().mean()
        right = (decoded.phones.argmax(-1) == phones)[sounding].float().mean()
        return {"loss": spelled + c.mel_weight * spectrum, "phones": spelled, "mel": spectrum, "right": right}

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        mel, phones = crops(learnt, ("mel", "phones"), c.frames, c.schedule.batch, rng)
        return losses(model(mel), mel, phones)

    def validate() -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for u in held:
            mel, phones = as_tensor(u.mel)[None], as_tensor(u.phones)[None]
            with torch.inference_mode():
                for name, value in losses(model(mel), mel, phones).items():
                    sums.setdefault(f"held {name}", []).append(float(value))
        return {name: float(np.mean(values)) for name, values in sums.items()}

    task = Task(STAGE, model, loss, validate)
    return Trainer(workspace, task, c.schedule, settings.seed, console).run()


def write_units(settings: Settings, workspace: Workspace, console: Console) -> None:
    """Stage `units`: the units of every answer, and of its variants, in `features/units.npz` beside
    `features/answers.npz`."""
    tokenizer = load_averaged(workspace, STAGE, make_tokenizer(settings))
    utterances = load_answers(workspace)
    rng = np.random.default_rng(settings.seed)

    def units(mel: np.ndarray) -> np.ndarray:
        return tokenizer.units(as_tensor(mel)[None])[0].numpy().astype(np.int16)

    rows = [
        [units(u.mel), *(units(variant(u.mel, rng)) for _ in range(settings.tokenizer.variants))] for u in utterances
    ]
    workspace.save_arrays(
        workspace.path("features", "units.npz"),
        units=np.concatenate([row for several in rows for row in several]),
        lengths=np.array([[len(row) for row in several] for several in rows]),
        texts=np.array([u.text for u in utterances]),
    )
    everything = np.concatenate([several[0] for several in rows])
    counts = np.bincount(everything)
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * np.log(shares)).sum())
    console.print(f"{len(everything)} units, {(counts > 0).sum()} different ones, entropy {entropy:.2f} nats")


def load_variants(utterances: list[Utterance], workspace: Workspace) -> list[list[np.ndarray]]:
    """The units of utterances, of each its own and those of its variants, (n,) int16.

    Raises:
        ValueError: they are of other utterances: run stage `units` again.
    """
    with np.load(workspace.path("features", "units.npz")) as file:
        units, lengths, texts = file["units"], file["lengths"], file["texts"]
    if [u.text for u in utterances] != texts.tolist():
        raise ValueError("features/units.npz belongs to other answers: run the stage `units` again")
    rows = iter(np.split(units, np.cumsum(lengths)[:-1]))
    return [[next(rows) for _ in several] for several in lengths]


def load_units(utterances: list[Utterance], workspace: Workspace) -> list[np.ndarray]:
    """The units of utterances, (n,) int16 each; see `load_variants`."""
    return [several[0] for several in load_variants(utterances, workspace)]
