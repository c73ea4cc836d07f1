"""Gate fusion: hidden states and embeddings of their text tokens go in, speech-LM input vectors come out (spec §6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omni2_engine.model.config import FusionConfig


class TorchFusion(nn.Module):
    """c = g ⊙ proj(h) + (1 − g) ⊙ embed(t), with the gate g computed from both."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.input_proj = nn.Sequential(
            nn.Linear(config.llm_hidden, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.speech_hidden)
        )
        self.gate = nn.Sequential(nn.Linear(2 * config.speech_hidden, config.speech_hidden), nn.Sigmoid())

    def forward(self, hidden: Tensor, embeds: Tensor) -> Tensor:
        """Fuse (…, llm_hidden) hidden states with (…, speech_hidden) token embeddings → (…, speech_hidden)."""
        projected = self.input_proj(hidden)
        gate = self.gate(torch.cat([projected, embeds], dim=-1))
        return gate * projected + (1.0 - gate) * embeds
