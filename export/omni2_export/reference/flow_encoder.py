"""Flow encoder: the whole sequence of embedded units goes in, features at mel-frame rate come out (spec §8.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni2_engine.model.config import FlowEncoderConfig
from omni2_export.reference.blocks import block_causal_mask

LAYER_EPS = 1e-12  # of both norms inside a layer; every other norm has 1e-5
SMOOTHING_KERNEL = 3  # second pre-lookahead convolution, hard-coded upstream


def relative_positions(length: int, width: int, device: torch.device) -> Tensor:
    """Sinusoids of relative positions length−1 … −(length−1), (2·length − 1, width); even columns sine, odd cosine."""
    position = torch.arange(length - 1, -length, -1, device=device, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2, device=device, dtype=torch.float32) * (-math.log(10000.0) / width))
    angle = position * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def relative_shift(scores: Tensor) -> Tensor:
    """(B, heads, T, 2T−1) with columns by relative position → (B, heads, T, T) with columns by key."""
    batch, heads, length, columns = scores.shape
    # One column of padding makes every row start one key later than the row above it, once re-read with rows of 2T−1.
    padded = F.pad(scores, (1, 0)).view(batch, heads, columns + 1, length)
    return padded[:, :, 1:].reshape(batch, heads, length, columns)[..., :length]


class InputLayer(nn.Module):
    """Linear → LayerNorm → ×√width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.scale = math.sqrt(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        return self.out(x) * self.scale


class PreLookahead(nn.Module):
    """Two convolutions: the first sees `lookahead` units of the future, the second two of the past."""

    def __init__(self, width: int, lookahead: int) -> None:
        super().__init__()
        self.lookahead = lookahead
        self.conv1 = nn.Conv1d(width, width, lookahead + 1)
        self.conv2 = nn.Conv1d(width, width, SMOOTHING_KERNEL)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) → (B, N, width); beyond the last unit there are zeros."""
        y = F.leaky_relu(self.conv1(F.pad(x.transpose(1, 2), (0, self.lookahead))))
        y = self.conv2(F.pad(y, (SMOOTHING_KERNEL - 1, 0)))
        return x + y.transpose(1, 2)


class RelativeAttention(nn.Module):
    """Attention with relative positions: score(i, j) = [(q_i + u)·k_j + (q_i + v)·W_pos PE(i − j)] / √d."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, width // heads))

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width), positions (2T−1, width), mask (T, T) → (B, T, width)."""
        q, k, v, p = (
            project(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T or 2T−1, d)
            for project, y in (
                (self.linear_q, x),
                (self.linear_k, x),
                (self.linear_v, x),
                (self.linear_pos, positions[None]),
            )
        )
        by_position = relative_shift((q + self.pos_bias_v[:, None]) @ p.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        bias = by_position.masked_fill(~mask, float("-inf"))
        y = F.scaled_dot_product_attention(q + self.pos_bias_u[:, None], k, v, attn_mask=bias)
        return self.linear_out(y.transpose(1, 2).flatten(-2))


class FlowFeedForward(nn.Module):
    """Linear → SiLU → Linear."""

    def __init__(self, width: int, ffn: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, ffn)
        self.w_2 = nn.Linear(ffn, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        return self.w_2(F.silu(self.w_1(x)))


class FlowEncoderLayer(nn.Module):
    """Pre-norm conformer layer without convolution and without the second feed-forward."""

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(width, heads)
        self.feed_forward = FlowFeedForward(width, ffn)
        self.norm_mha = nn.LayerNorm(width, eps=LAYER_EPS)
        self.norm_ff = nn.LayerNorm(width, eps=LAYER_EPS)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        x = x + self.self_attn(self.norm_mha(x), positions, mask)
        return x + self.feed_forward(self.norm_ff(x))


class UpSample(nn.Module):
    """Repeats every unit `ratio` times, then a causal convolution."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.conv = nn.Conv1d(width, width, 2 * ratio + 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) → (B, ratio·N, width)."""
        y = x.transpose(1, 2).repeat_interleave(self.ratio, dim=2)
        return self.conv(F.pad(y, (2 * self.ratio, 0))).transpose(1, 2)


@dataclass(frozen=True)
class EncoderTrace:
    """The encoder's inner results, each (1, units or frames, width), and its output."""

    embed: Tensor
    positions: Tensor  # (2·units − 1, width)
    prelookahead: Tensor
    layers: Tensor
    up: Tensor
    out: Tensor


class FlowEncoder(nn.Module):
    """Up-sampling conformer encoder."""

    def __init__(self, config: FlowEncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = InputLayer(width)
        self.pre_lookahead_layer = PreLookahead(width, config.lookahead)
        self.encoders = nn.ModuleList(FlowEncoderLayer(width, config.heads, config.ffn) for _ in range(config.blocks))
        self.up_layer = UpSample(width, config.ratio)
        self.up_embed = InputLayer(width)
        self.up_encoders = nn.ModuleList(
            FlowEncoderLayer(width, config.heads, config.up_ffn) for _ in range(config.up_blocks)
        )
        self.after_norm = nn.LayerNorm(width)

    def trace(self, x: Tensor) -> EncoderTrace:
        """Embedded units (B, N, width) → all inner results; `out` (B, ratio·N, width) still has the look-ahead."""
        embed = self.embed(x)
        prelookahead = self.pre_lookahead_layer(embed)
        layers, positions = prelookahead, relative_positions(x.shape[1], self.config.width, x.device)
        mask = block_causal_mask(x.shape[1], self.config.block_units, x.device)
        for layer in self.encoders:
            layers = layer(layers, positions, mask)
        up = self.up_layer(layers)
        y, up_positions = self.up_embed(up), relative_positions(up.shape[1], self.config.width, x.device)
        mask = block_causal_mask(up.shape[1], self.config.block_frames, x.device)
        for layer in self.up_encoders:
            y = layer(y, up_positions, mask)
        return EncoderTrace(embed, positions, prelookahead, layers, up, self.after_norm(y))

    def forward(self, x: Tensor) -> Tensor:
        """Embedded units (B, N, width) → (B, ratio·N, width)."""
        return self.trace(x).out
