"""Stage `features`: synthesised answers in one file, with everything that training reads of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from omni2_training.config import Settings
from omni2_training.mel import BINS, HOP, log_mel
from omni2_training.quiet import pause_while_measured
from omni2_training.synthesise import answers
from omni2_training.teacher.kokoro import FRAME
from omni2_training.workspace import Workspace

UNIT = 2 * HOP  # samples of one speech unit
LOWEST = 50.0  # Hz: below it the teacher means that there is no voice


@dataclass(frozen=True)
class Utterance:
    """One answer.

    Args:
        text: what is said.
        held: whether it belongs to the held-out part only, so that nothing may be learnt from it.
        pcm: (960 n,) int16 at 24 kHz.
        mel: (2 n, 80) float16, see `mel`.
        phones: (2 n,) int16, the phoneme of each mel frame.
        pitch: (2 n,) float32 Hz of each mel frame, 0 where unvoiced.
    """

    text: str
    held: bool
    pcm: NDArray[np.int16]
    mel: NDArray[np.float16]
    phones: NDArray[np.int16]
    pitch: NDArray[np.float32]

    @property
    def units(self) -> int:
        """How many speech units it has."""
        return len(self.mel) // 2


def utterance(text: str, held: bool, speech: dict[str, NDArray]) -> Utterance:
    """Features of what the teacher said; the end is filled up with silence to whole units."""
    length = -(-len(speech["pcm"]) // UNIT) * UNIT
    pcm = np.zeros(length, np.int16)
    pcm[: len(speech["pcm"])] = speech["pcm"]
    mel = log_mel(torch.from_numpy(pcm.astype(np.float32) / 32768)[None])[0].T
    middle = (np.arange(length // HOP) + 0.5) * HOP  # of every mel frame, in samples
    phones = np.repeat(speech["symbols"], speech["durations"])
    pitch = np.where(speech["pitch"] < LOWEST, 0, speech["pitch"])
    at = np.minimum((middle / FRAME).astype(int), len(phones) - 1)
    return Utterance(
        text,
        held,
        pcm,
        mel.numpy().astype(np.float16),
        phones[at].astype(np.int16),
        pitch[np.minimum((middle / FRAME * 2).astype(int), len(pitch) - 1)].astype(np.float32),
    )


def pack_answers(settings: Settings, workspace: Workspace, console: Console) -> None:
    """Read every answer that has been spoken, and write `features/answers.npz`."""
    corpus = workspace.corpus()
    trained = {turn.answer for item in corpus.train for turn in item.turns}
    found: list[Utterance] = []
    for text in answers(corpus):
        path = workspace.answer(text, settings.teacher.name_of(text))
        if path.is_file():
            pause_while_measured()
            with np.load(path) as speech:
                found.append(utterance(text, text not in trained, dict(speech)))
    columns = ("pcm", "mel", "phones", "pitch")
    workspace.save_arrays(
        workspace.path("features", "answers.npz"),
        texts=np.array([u.text for u in found]),
        held=np.array([u.held for u in found]),
        units=np.array([u.units for u in found]),
        **{name: np.concatenate([getattr(u, name) for u in found]) for name in columns},
    )
    hours = sum(u.units for u in found) / 25 / 3600
    console.print(f"{len(found)} answers, {hours:.2f} hours, {sum(u.held for u in found)} of them held out")


def load_answers(workspace: Workspace) -> list[Utterance]:
    """What `pack_answers` wrote, in the corpus' order; arrays are views of four large ones."""
    with np.load(workspace.path("features", "answers.npz")) as file:
        data = dict(file)
    ends = np.cumsum(data["units"])
    utterances = []
    for i, (text, held) in enumerate(zip(data["texts"], data["held"], strict=True)):
        stop, start = int(ends[i]), int(ends[i] - data["units"][i])
        frames = slice(2 * start, 2 * stop)
        utterances.append(
            Utterance(
                str(text),
                bool(held),
                data["pcm"][UNIT * start : UNIT * stop],
                data["mel"].reshape(-1, BINS)[frames],
                data["phones"][frames],
                data["pitch"][frames],
            )
        )
    return utterances
