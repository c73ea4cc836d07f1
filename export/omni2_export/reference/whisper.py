"""Whisper encoder and speech projector: a log-mel window goes in, language-model positions come out (spec §3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni2_engine.model.config import EncoderConfig


class WhisperAttention(nn.Module):
    """Bidirectional multi-head attention; the key projection has no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, width / heads)
            for project in (self.query, self.key, self.value)
        )
        scale = q.shape[-1] ** -0.25  # on both sides and with all scores in memory, as the original computes it
        scores = (q * scale) @ (k * scale).transpose(-1, -2)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(-2))


class WhisperBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attn = WhisperAttention(config.width, config.heads)
        self.attn_ln = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(nn.Linear(config.width, config.ffn), nn.GELU(), nn.Linear(config.ffn, config.width))
        self.mlp_ln = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        x = x + self.attn(self.attn_ln(x))
        return x + self.mlp(self.mlp_ln(x))


class Projector(nn.Module):
    """Joins `stack` consecutive positions and maps them to the language model's width."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.stack = config.stack
        self.linear1 = nn.Linear(config.width * config.stack, config.projector_hidden)
        self.linear2 = nn.Linear(config.projector_hidden, config.output)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T // stack, output); positions that fill no stack are dropped."""
        positions = x.shape[1] // self.stack
        stacked = x[:, : positions * self.stack].reshape(x.shape[0], positions, -1)
        return self.linear2(F.relu(self.linear1(stacked)))


class TorchSpeechEncoder(nn.Module):
    """Whisper encoder with the projector behind it."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(config.mel_bins, config.width, 3, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.positional_embedding = nn.Parameter(torch.empty(config.context, config.width))
        self.blocks = nn.ModuleList(WhisperBlock(config) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(config.width)
        self.projector = Projector(config)

    def encode(self, mel: Tensor) -> Tensor:
        """Log-mel (B, frames, mel_bins) → encoder output (B, context, width)."""
        x = F.gelu(self.conv1(mel.transpose(1, 2)))
        x = F.gelu(self.conv2(x)).transpose(1, 2) + self.positional_embedding
        for block in self.blocks:
            x = block(x)
        return self.ln_post(x)

    def forward(self, mel: Tensor) -> Tensor:
        """Log-mel (B, frames, mel_bins) → projected features (B, positions, output)."""
        return self.projector(self.encode(mel))
