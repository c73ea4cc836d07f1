"""Stages `vocoder` and `finish`: HiFT from mel and pitch to sound."""

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
from omni2_training.flow_mels import with_flow_mels
from omni2_training.loop import Schedule, Task, Trainer, load_averaged
from omni2_training.models.critic import Adversary
from omni2_training.models.precision import Float32Conv, float32
from omni2_training.models.snake import with_fast_snakes
from omni2_training.models.spectral import spectral_losses
from omni2_training.models.start import initialise
from omni2_training.workspace import Workspace

STAGE, FINISH = "vocoder", "finish"
OWN_PITCH = 0.5  # share of the batches whose source follows the predicted pitch, as it does in use


def make_vocoder(settings: Settings) -> HiFT:
    """An untrained vocoder."""
    vocoder = with_fast_snakes(initialise(HiFT(settings.vocoder.model)))
    vocoder.conv_post.__class__ = Float32Conv  # its output becomes a spectrum, whose inverse needs float32
    return vocoder


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
    with float32():  # the phase is a running sum
        source = vocoder.source(pitch, draws(vocoder, len(mel), mel.shape[2]))
    return vocoder.decode(mel, source)


def train_vocoder(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Stage `vocoder`: by spectral losses; see `Trainer.run`."""
    torch.manual_seed(settings.seed)
    model = make_vocoder(settings)
    learnt = [u for u in load_answers(workspace) if not u.held]
    return _train(STAGE, settings.vocoder.schedule, model, None, learnt, settings, workspace, console)


def finish_vocoder(settings: Settings, workspace: Workspace, console: Console) -> bool:
    """Stage `finish`: what `vocoder` gave, on true mels and the flow's, against an adversary; see `Trainer.run`."""
    torch.manual_seed(settings.seed)
    model = make_vocoder(settings)
    load_averaged(workspace, STAGE, model).train().requires_grad_(True)
    adversary = Adversary(settings.vocoder.critic)
    learnt = with_flow_mels([u for u in load_answers(workspace) if not u.held], workspace)
    return _train(FINISH, settings.vocoder.finish, model, adversary, learnt, settings, workspace, console)


def _train(
    name: str,
    schedule: Schedule,
    model: HiFT,
    adversary: Adversary | None,
    learnt: list[Utterance],
    settings: Settings,
    workspace: Workspace,
    console: Console,
) -> bool:
    c = settings.vocoder
    held = [u for u in load_answers(workspace) if u.held][:20]
    threshold = c.model.voiced_threshold

    def losses(mel: Tensor, true_pitch: Tensor, wave: Tensor, own: bool) -> tuple[Tensor, dict[str, Tensor]]:
        with float32():
            predicted = model.f0(mel)
        made = voiced_sound(model, mel, predicted.detach() if own else true_pitch)
        with float32():
            parts = spectral_losses(made, wave)
            pitch = pitch_loss(predicted, true_pitch, threshold)
        return made, {"loss": parts["stft"] + c.mel_weight * parts["mel"] + pitch, **parts, "pitch": pitch}

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        mel, pitch, wave = sound_crops(learnt, c.frames, schedule.batch, rng, c.model.hop)
        made, found = losses(mel, pitch, wave, own=bool(rng.random() < OWN_PITCH))
        if adversary is None:
            return found
        found["critic"] = adversary.learn(made, wave)
        opinion = adversary.judge(made, wave)
        found["loss"] = found["loss"] + c.critic.weight * opinion["deceit"] + c.critic.matching * opinion["matching"]
        return found | opinion

    def validate() -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for u in held:
            mel, wave = as_tensor(u.mel).T[None], as_tensor(u.pcm)[None] / 32768
            with torch.inference_mode():
                _, found = losses(mel, as_tensor(u.pitch)[None], wave, own=True)
            for key, value in found.items():
                sums.setdefault(f"held {key}", []).append(float(value))
        return {key: float(np.mean(values)) for key, values in sums.items()}

    task = Task(name, model, loss, validate, beside=adversary)
    return Trainer(workspace, task, schedule, settings.seed, console).run()


def load_vocoder(settings: Settings, workspace: Workspace) -> HiFT:
    """The vocoder as far as it has been trained: finished, or as stage `vocoder` left it."""
    finished = workspace.path(FINISH, "checkpoint.pt").is_file()
    return load_averaged(workspace, FINISH if finished else STAGE, make_vocoder(settings))


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
