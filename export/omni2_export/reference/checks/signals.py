"""The small graphs: log-mel, fusion, and the flow's time and voice conditions."""

from __future__ import annotations

import numpy as np
import torch

from omni2_export.reference.build import load_flow, load_fusion
from omni2_export.reference.checks.subject import Floats, Subject, tensor
from omni2_export.reference.frontend import log_mel
from omni2_export.verify.tolerances import DEVIATION, LOG_MEL, SIGNAL

LOUDNESS = 0.1  # standard deviation of random audio
PAIRS = (1, 6)  # of hidden state and text token
TIMES = (1, 4)  # points of the solver's time


def check_log_mel(subject: Subject) -> None:
    """A window full of noise, and one that is silent after a quarter of it."""
    config, graph = subject.config.encoder, subject.graph("log_mel")
    rows = []
    for loud in (config.samples, config.samples // 4):
        audio = np.zeros(config.samples, np.float32)
        audio[:loud] = LOUDNESS * subject.normal(loud)
        found = graph.run({"audio": audio[None]})["log_mel"][0].T
        rows.append(
            subject.judge(
                "log_mel", f"{loud} samples of noise", found, log_mel(tensor(audio), config), absolute=LOG_MEL
            )
        )
    subject.add(rows)


@torch.inference_mode()
def check_fusion(subject: Subject) -> None:
    """Pairs, one and several."""
    config, graph = subject.config.fusion, subject.graph("fusion")
    module, rows = load_fusion(subject.checkpoint), []
    for pairs in PAIRS:
        hidden, embeds = subject.normal(pairs, config.llm_hidden), subject.normal(pairs, config.speech_hidden)
        found = graph.run({"hidden": hidden, "token_embeds": embeds})["fused"]
        expected = module(tensor(hidden), tensor(embeds))
        rows.append(subject.judge("fusion", f"{pairs} pairs", found, expected, relative=DEVIATION))
    subject.add(rows)


@torch.inference_mode()
def check_conditions(subject: Subject) -> None:
    """Time shifts of every resnet and the voice's projection."""
    config, graph, flow = subject.config.estimator, subject.graph("flow_conditions"), load_flow(subject.checkpoint)
    estimator = flow.decoder.estimator
    resnets = [stage[0] for stage in (*estimator.down_blocks, *estimator.mid_blocks, *estimator.up_blocks)]
    shifts, voices = [], []
    for count in TIMES:
        times: Floats = subject.random.random(count, np.float32)
        embedding = subject.normal(1, config.speaker)
        outputs = graph.run({"t": times, "embedding": embedding})
        time = estimator.time_mlp(tensor(times))
        expected = torch.stack([resnet.mlp(time) for resnet in resnets], dim=1)
        what = f"time shifts, {count} points"
        shifts.append(subject.judge("flow_conditions", what, outputs["shifts"], expected, relative=DEVIATION))
        voice = flow.speaker(tensor(embedding))
        voices.append(subject.judge("flow_conditions", "voice", outputs["speaker_features"], voice, absolute=SIGNAL))
    subject.add(shifts)
    subject.add(voices)
