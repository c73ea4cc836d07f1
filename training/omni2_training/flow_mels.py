"""Stage `mels`: what the trained flow makes of every answer's units, for the vocoder's finish.

A vocoder that has heard true mels only takes the flow's small faults for sound; having learnt the true sound beside the
flow's mels, it leaves them out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from omni2_export.reference.solver import TorchFlow
from omni2_training.config import Settings
from omni2_training.features import Utterance, load_answers
from omni2_training.loop import load_averaged
from omni2_training.mel import BINS
from omni2_training.quiet import pause_while_measured
from omni2_training.train_flow import STAGE as FLOW
from omni2_training.train_flow import make_flow
from omni2_training.train_tokenizer import load_units
from omni2_training.workspace import Workspace


def load_flow(settings: Settings, workspace: Workspace) -> TorchFlow:
    """The trained flow, in the reference's module.

    Raises:
        FileNotFoundError: stage `flow` has not run.
    """
    return load_averaged(workspace, FLOW, make_flow(settings)).export()


@torch.inference_mode()
def flow_mel(flow: TorchFlow, units: NDArray[np.integer], scale: float) -> torch.Tensor:
    """What the solver makes of (N,) units: (1, mel, 2 N) float32 log-mel of the vocoder's size.

    Args:
        scale: how many times larger the flow's own mel is (spec §8.2 for the solver).

    The solver's noise comes from torch's global generator.
    """
    mu = flow.mean(torch.from_numpy(units.astype(np.int64))[None])
    speaker = flow.spk_embed_affine_layer.bias[None]
    return flow.decoder(torch.randn_like(mu), mu, speaker) / scale


def write_mels(settings: Settings, workspace: Workspace, console: Console) -> None:
    """Write `features/mels.npz`: of each answer of `features/answers.npz` that is not held out (2 N, 80) float16.

    Raises:
        FileNotFoundError: stage `flow`, `features` or `units` has not run.
        ValueError: the units are of other answers.
    """
    torch.manual_seed(settings.seed)
    flow = load_flow(settings, workspace)
    utterances = load_answers(workspace)
    made, texts = [], []
    for u, units in zip(utterances, load_units(utterances, workspace), strict=True):
        if not u.held:
            pause_while_measured()
            made.append(flow_mel(flow, units, settings.flow.scale)[0].T.numpy().astype(np.float16))
            texts.append(u.text)
    workspace.save_arrays(
        workspace.path("features", "mels.npz"),
        mel=np.concatenate(made),
        lengths=np.array([len(mel) for mel in made]),
        texts=np.array(texts),
    )
    console.print(f"{len(made)} mels")


def with_flow_mels(utterances: list[Utterance], workspace: Workspace) -> list[Utterance]:
    """The utterances, and once more those that stage `mels` knows, with the flow's mel in place of their own.

    Raises:
        FileNotFoundError: the stage has not run.
        ValueError: a mel is not as long as the utterance of the same text.
    """
    with np.load(workspace.path("features", "mels.npz")) as file:
        rows = np.split(file["mel"].reshape(-1, BINS), np.cumsum(file["lengths"])[:-1])
        mels = dict(zip(file["texts"].tolist(), rows, strict=True))
    made = [replace(u, mel=mels[u.text]) for u in utterances if u.text in mels]
    if any(len(u.mel) != len(u.pitch) for u in made):
        raise ValueError("features/mels.npz belongs to other answers: run the stage `mels` again")
    return utterances + made
