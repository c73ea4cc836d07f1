"""Qwen2 decoder with a concatenated KV cache: embeddings go in, normed hidden states come out (spec §5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni2_engine.model.config import DecoderConfig

Cache = list[tuple[Tensor, Tensor]]  # keys and values of every layer, each (B, kv_heads, positions, head_dim)


class RMSNorm(nn.Module):
    """x · rsqrt(mean x² + eps) · w over the last axis, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


def rotary_table(start: int, stop: int, config: DecoderConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions [start, stop), each (stop − start, head_dim), rotate-half layout."""
    exponent = torch.arange(0, config.head_dim, 2, device=like.device, dtype=torch.float32) / config.head_dim
    frequency = 1.0 / config.rope_theta**exponent
    angle = torch.arange(start, stop, device=like.device, dtype=torch.float32)[:, None] * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of (B, heads, T, head_dim)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Qwen2Attention(nn.Module):
    """Grouped-query causal attention; q, k, v have a bias, the output has none."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.hidden, config.heads * config.head_dim)
        self.k_proj = nn.Linear(config.hidden, config.kv_heads * config.head_dim)
        self.v_proj = nn.Linear(config.hidden, config.kv_heads * config.head_dim)
        self.o_proj = nn.Linear(config.heads * config.head_dim, config.hidden, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, S, hidden) with its layer's past → (B, S, hidden) and the past grown by S."""
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).flatten(-2)), (k, v)


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, hidden) → (B, S, hidden)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Qwen2Layer(nn.Module):
    """Pre-norm decoder layer."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden, config.rms_eps)
        self.self_attn = Qwen2Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.rms_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, S, hidden) → (B, S, hidden) and the layer's grown past."""
        attended, past = self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), past


class Qwen2(nn.Module):
    """The language model or the speech language model."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab, config.hidden)
        self.layers = nn.ModuleList(Qwen2Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.rms_eps)
        self.lm_head = nn.Linear(config.hidden, config.vocab, bias=False)

    def forward(self, embeds: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Run S new positions behind those of the cache.

        Args:
            embeds: (B, S, hidden) input embeddings.
            cache: what the previous call returned; None at the start of a sequence.

        Returns:
            (B, S, hidden) after the final norm (`lm_head` of it gives logits), and the cache grown by S positions.
        """
        start = cache[0][0].shape[2] if cache else 0
        new = embeds.shape[1]
        cos, sin = rotary_table(start, start + new, self.config, embeds)
        mask = None  # one new position sees everything
        if new > 1:
            mask = torch.ones(new, start + new, dtype=torch.bool, device=embeds.device).tril(start)
        x, grown = embeds, []
        for i, layer in enumerate(self.layers):
            x, past = layer(x, cos, sin, mask, cache[i] if cache else None)
            grown.append(past)
        return self.norm(x), grown
