"""Whisper encoder and projector, a block at a time; blocks between the first and the last at two lengths."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni2_export.reference.checks.subject import Subject, tensor
from omni2_export.reference.whisper import Projector, WhisperBlock
from omni2_export.verify.rows import Row
from omni2_export.verify.tolerances import DEVIATION

LENGTHS = (50, 129)  # positions inner blocks are run on
WINDOWS = 2  # random windows for what has a fixed length


@torch.inference_mode()
def check_encoder(subject: Subject) -> None:
    """Convolutions with the first block, the other blocks, and what follows them."""
    config = subject.config.encoder
    subject.add([_first_block(subject) for _ in range(WINDOWS)])
    blocks = [row for layer in range(1, config.layers) for row in _block(subject, layer)]
    if blocks:
        subject.add(blocks)
    for rows in zip(*(_tail(subject) for _ in range(WINDOWS)), strict=True):
        subject.add(rows)


def _first_block(subject: Subject) -> Row:
    config = subject.config.encoder
    log_mel = subject.normal(1, config.mel_bins, config.frames)
    found = subject.part("encoder", [], ["layer_0_out"]).run({"log_mel": log_mel})["layer_0_out"]
    first = subject.module(lambda: nn.Conv1d(config.mel_bins, config.width, 3, padding=1), "encoder", "conv1.")
    second = subject.module(lambda: nn.Conv1d(config.width, config.width, 3, stride=2, padding=1), "encoder", "conv2.")
    positions = tensor(subject.checkpoint.modules["encoder"].read("positional_embedding"))
    x = F.gelu(second(F.gelu(first(tensor(log_mel))))).transpose(1, 2) + positions
    block = subject.module(lambda: WhisperBlock(config), "encoder", "blocks.0.")
    return subject.judge("encoder", "convolutions and block 0", found, block(x), relative=DEVIATION)


def _block(subject: Subject, layer: int) -> list[Row]:
    config = subject.config.encoder
    before, after = f"layer_{layer - 1}_out", f"layer_{layer}_out"
    graph = subject.part("encoder", [before], [after])
    module = subject.module(lambda: WhisperBlock(config), "encoder", f"blocks.{layer}.")
    rows = []
    for length in LENGTHS:
        x = subject.normal(1, length, config.width)
        what = f"block {layer}, {length} positions"
        found = graph.run({before: x})[after]
        rows.append(subject.judge("encoder", what, found, module(tensor(x)), relative=DEVIATION))
    return rows


def _tail(subject: Subject) -> tuple[Row, Row]:
    config = subject.config.encoder
    before = f"layer_{config.layers - 1}_out"
    x = subject.normal(1, config.context, config.width)
    outputs = subject.part("encoder", [before], ["encoder_out", "speech"]).run({before: x})
    encoded: Tensor = subject.module(lambda: nn.LayerNorm(config.width), "encoder", "ln_post.")(tensor(x))
    speech = subject.module(lambda: Projector(config), "encoder", "projector.")(encoded)
    return (
        subject.judge("encoder", "final norm", outputs["encoder_out"], encoded, relative=DEVIATION),
        subject.judge("encoder", "projector", outputs["speech"], speech, relative=DEVIATION),
    )
