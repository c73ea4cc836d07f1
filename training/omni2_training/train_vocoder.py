"""Stage `vocoder`: HiFT from mel and pitch to sound, by spectral losses."""

from __future__ import annotations

import math

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from omni2_export.reference.vocoder import HiFT, SourceDraws
from omni2_training.batches import as_tensor
from omni2_training.config import Settings
from omni2_training.features import Utterance, load_answers
from omni2_training.loop import Task, Trainer
from omni2_training.models.snake import with_fast_snakes
from omni2_training.models.spectral import spectral_losses
from omni2_training.models.start import initialise
from omni2_training.workspace import Workspace

STAGE = "vocoder"
OWN_PITCH = 0.5  # share of the batches whose source follows the predicted pitch, as it does in use


def make_vocoder(settings: Settings) -> HiFT:
    """An untrained vocoder."""
    return with_fast_snakes(initialise(HiFT(settings.vocoder.model)))


def draws(vocoder: HiFT, batch: int, frames: int) -> SourceDraws:
    """Random numbers of the source for a batch."""
    waves = vocoder.config.harmonics + 1
    phase = (2 * torch.rand(batch, waves, 1) - 1) * math.pi
    return SourceDraws(phase, torch.randn(batch, waves, frames * vocoder.config.hop))


def pitch_loss(predicted: Tensor, true: Tensor, threshold: float) -> Tensor:
    """Distance in log-Hz where it is voiced, and of everything to silence below the threshold where it is not."""
    voiced = true > threshold
    octaves = ((predicted + 1).log() - (true + 1).log()).abs()
    stray = (predicted - threshold / 2).clamp_min(0) / 50
    return torch.where(voiced, 2 * octaves, stray.clamp_max(4)).mean()


def voiced_sound(vocoder: HiFT, mel: Tensor, pitch: Tensor) -> Tensor:
    """Mel (B, mel, F) and Hz (B, F) → waveform (B, hop F)."""
    source = vocoder.source(pitch, draws(vocoder, len(mel), mel.shape[2]))
    return vocoder.decode(mel, source)


def train_vocoder(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Train it; see `Trainer.run`."""
    c = settings.vocoder
    utterances = load_answers(workspace)
    learnt = [u for u in utterances if not u.held]
    held = [u for u in utterances if u.held][:20]
    torch.manual_seed(settings.seed)
    model = make_vocoder(settings)
    hop, threshold = c.model.hop, c.model.voiced_threshold

    def losses(mel: Tensor, true_pitch: Tensor, wave: Tensor, own: bool) -> dict[str, Tensor]:
        predicted = model.f0(mel)
        made = voiced_sound(model, mel, predicted.detach() if own else true_pitch)
        parts = spectral_losses(made, wave)
        pitch = pitch_loss(predicted, true_pitch, threshold)
        return {"loss": parts["stft"] + c.mel_weight * parts["mel"] + pitch, **parts, "pitch": pitch}

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        mel, pitch, wave = sound_crops(learnt, c.frames, c.schedule.batch, rng, hop)
        return losses(mel, pitch, wave, own=bool(rng.random() < OWN_PITCH))

    def validate() -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for u in held:
            mel, wave = as_tensor(u.mel).T[None], as_tensor(u.pcm)[None] / 32768
            with torch.inference_mode():
                for name, value in losses(mel, as_tensor(u.pitch)[None], wave, own=True).items():
                    sums.setdefault(f"held {name}", []).append(float(value))
        return {name: float(np.mean(values)) for name, values in sums.items()}

    return Trainer(workspace, Task(STAGE, model, loss, validate), c.schedule, settings.seed, console).run()


def sound_crops(
    utterances: list[Utterance], frames: int, batch: int, rng: np.random.Generator, hop: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Random crops: mel (B, mel, frames), pitch (B, frames) in Hz, waveform (B, hop frames)."""
    chosen = [u for u in utterances if len(u.mel) >= frames]
    lengths = np.array([len(u.mel) for u in chosen], np.float64)
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for i in rng.choice(len(chosen), batch, p=lengths / lengths.sum()):
        u, start = chosen[i], int(rng.integers(0, len(chosen[i].mel) - frames + 1))
        at = slice(start, start + frames)
        rows.append((u.mel[at], u.pitch[at], u.pcm[hop * start : hop * (start + frames)]))
    mel, pitch, pcm = (as_tensor(np.stack(column)) for column in zip(*rows, strict=True))
    return mel.transpose(1, 2), pitch, pcm / 32768
