"""Prompt assembly: token ids with speech slots and projected features go in, input embeddings come out (spec §4)."""

from __future__ import annotations

import torch
from torch import Tensor

from omni2_export.reference.qwen2 import Qwen2
from omni2_export.reference.read_write import embed

SPEECH_SLOT = -200  # stands for a whole utterance in a prompt's ids


def mark_speech(ids: list[int], speech: int) -> list[int]:
    """Prompt ids with every `<speech>` id replaced by `SPEECH_SLOT`."""
    return [SPEECH_SLOT if i == speech else i for i in ids]


def prompt_embeds(llm: Qwen2, ids: list[int], features: list[Tensor], limit: int | None) -> Tensor:
    """Embed a prompt with its utterances in place.

    Args:
        ids: prompt ids; each `SPEECH_SLOT` takes the next utterance.
        features: projected features (positions, hidden), one per slot.
        limit: the prompt is cut to this many positions; None leaves it whole.

    Returns:
        (1, P, hidden).
    """
    utterances = iter(features)
    parts = [next(utterances)[None] if i == SPEECH_SLOT else embed(llm, [i]) for i in ids]
    return torch.cat(parts, dim=1)[:, :limit]
