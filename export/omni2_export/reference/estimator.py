"""The flow's velocity network: noisy mel, μ, speaker, condition and time go in, dx/dt comes out (spec §8.3)."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni2_engine.model.config import EstimatorConfig
from omni2_export.reference.blocks import block_causal_mask

TIME_SCALE = 1000.0  # of the sinusoidal time embedding
KERNEL = 3  # of every causal convolution, hard-coded upstream


class TimeEmbedding(nn.Module):
    """Sinusoids of t through a two-layer perceptron."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.frequencies = width // 2
        self.linear_1 = nn.Linear(width, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)

    def forward(self, t: Tensor) -> Tensor:
        """(B,) → (B, hidden)."""
        step = -math.log(10000.0) / (self.frequencies - 1)
        frequency = torch.exp(torch.arange(self.frequencies, device=t.device, dtype=torch.float32) * step)
        angle = TIME_SCALE * t[:, None] * frequency
        return self.linear_2(F.silu(self.linear_1(torch.cat([angle.sin(), angle.cos()], dim=-1))))


class CausalConv(nn.Conv1d):
    """Convolution that sees the present and the past."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, KERNEL)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T) → (B, out, T)."""
        return super().forward(F.pad(x, (KERNEL - 1, 0)))


class Transpose(nn.Module):
    """Swaps channels and time."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, X, Y) → (B, Y, X)."""
        return x.transpose(1, 2)


class ConvBlock(nn.Module):
    """Causal convolution → LayerNorm over channels → Mish."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(CausalConv(channels, out), Transpose(), nn.LayerNorm(out), Transpose(), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T) → (B, out, T)."""
        return self.block(x)


class Resnet(nn.Module):
    """Two convolution blocks with the time embedding added between them, beside a 1×1 convolution."""

    def __init__(self, channels: int, out: int, time_hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_hidden, out))
        self.block1 = ConvBlock(channels, out)
        self.block2 = ConvBlock(out, out)
        self.res_conv = nn.Conv1d(channels, out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, channels, T), (B, time_hidden) → (B, out, T)."""
        return self.block2(self.block1(x) + self.mlp(time)[:, :, None]) + self.res_conv(x)


class EstimatorAttention(nn.Module):
    """Masked multi-head attention; only the output has a bias."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        inner = config.heads * config.head_dim
        self.to_q = nn.Linear(config.width, inner, bias=False)
        self.to_k = nn.Linear(config.width, inner, bias=False)
        self.to_v = nn.Linear(config.width, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, config.width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width), (T, T) → (B, T, width)."""
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(-2))


class Activation(nn.Module):
    """Linear → exact GELU."""

    def __init__(self, width: int, ffn: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, ffn)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T, ffn)."""
        return F.gelu(self.proj(x))


class EstimatorFeedForward(nn.Module):
    """Linear → GELU → Linear (index 1 of `net` is the original's dropout)."""

    def __init__(self, width: int, ffn: int) -> None:
        super().__init__()
        self.net = nn.Sequential(Activation(width, ffn), nn.Identity(), nn.Linear(ffn, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        return self.net(x)


class Transformer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attn1 = EstimatorAttention(config)
        self.norm3 = nn.LayerNorm(config.width)
        self.ff = EstimatorFeedForward(config.width, config.ffn)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width), (T, T) → (B, T, width)."""
        x = x + self.attn1(self.norm1(x), mask)
        return x + self.ff(self.norm3(x))


class EstimatorStage(nn.ModuleList):
    """[resnet, transformers, …]: one of `down_blocks`, `mid_blocks`, `up_blocks`; what follows runs apart."""

    def __init__(self, channels: int, config: EstimatorConfig, *tail: nn.Module) -> None:
        transformers = nn.ModuleList(Transformer(config) for _ in range(config.transformers))
        super().__init__([Resnet(channels, config.width, config.time_hidden), transformers, *tail])

    def forward(self, x: Tensor, time: Tensor, mask: Tensor) -> Tensor:
        """Resnet and transformers: (B, channels, T) → (B, width, T)."""
        x = self[0](x, time).transpose(1, 2)
        for transformer in self[1].children():
            x = transformer(x, mask)
        return x.transpose(1, 2)


class Estimator(nn.Module):
    """A U-net of one resolution, causal but for its attention blocks of `block_frames`."""

    def __init__(self, config: EstimatorConfig, block_frames: int) -> None:
        super().__init__()
        self.block_frames = block_frames
        width = config.width
        self.time_mlp = TimeEmbedding(config.in_channels, config.time_hidden)
        self.down_blocks = nn.ModuleList([EstimatorStage(config.in_channels, config, CausalConv(width, width))])
        self.mid_blocks = nn.ModuleList(EstimatorStage(width, config) for _ in range(config.mid_blocks))
        self.up_blocks = nn.ModuleList([EstimatorStage(2 * width, config, CausalConv(width, width))])
        self.final_block = ConvBlock(width, width)
        self.final_proj = nn.Conv1d(width, config.mel, 1)

    def forward(self, x: Tensor, mu: Tensor, speaker: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        """Velocity at time t.

        Args:
            x, mu, condition: (B, mel, T).
            speaker: (B, mel).
            t: (B,) in [0, 1].

        Returns:
            (B, mel, T).
        """
        frames = x.shape[2]
        time = self.time_mlp(t)
        mask = block_causal_mask(frames, self.block_frames, x.device)
        y = torch.cat([x, mu, speaker[:, :, None].expand(-1, -1, frames), condition], dim=1)
        down, up = cast(EstimatorStage, self.down_blocks[0]), cast(EstimatorStage, self.up_blocks[0])
        skip = down(y, time, mask)
        y = down[2](skip)
        for mid in self.mid_blocks:
            y = mid(y, time, mask)
        y = up[2](up(torch.cat([y, skip], dim=1), time, mask))
        return self.final_proj(self.final_block(y))
