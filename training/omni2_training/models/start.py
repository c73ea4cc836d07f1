"""Weights to begin with, for the reference modules: those leave everything that a checkpoint fills in empty."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from omni2_export.reference import flow_encoder, qwen2, vocoder

Module = TypeVar("Module", bound=nn.Module)
EMBEDDING = 0.02  # standard deviation of embeddings, and of the decoders' linear layers
QUIET = -4.0  # bias of the vocoder's log-magnitudes: it begins with a whisper, not with a shout


def initialise(module: Module) -> Module:
    """Set what `torch.empty` left undefined, and scale what matters at the start; returns the module."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, qwen2.RMSNorm):
                part.weight.fill_(1.0)
            elif isinstance(part, vocoder.Snake):
                part.alpha.fill_(1.0)
            elif isinstance(part, flow_encoder.RelativeAttention):
                part.pos_bias_u.zero_()
                part.pos_bias_v.zero_()
            elif isinstance(part, nn.Embedding):
                part.weight.normal_(std=EMBEDDING)
            elif isinstance(part, qwen2.Qwen2):
                _decoder(part)
            elif isinstance(part, vocoder.HiFT):
                _vocoder(part)
    return module


def _decoder(model: qwen2.Qwen2) -> None:
    """Small normal weights; those that write to the residual stream are smaller the more of them there are."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            narrowed = (2 * model.config.layers) ** -0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
            parameter.normal_(std=EMBEDDING * narrowed)
        elif name.endswith("bias"):
            parameter.zero_()


def _vocoder(model: vocoder.HiFT) -> None:
    model.conv_post.weight.mul_(0.3)
    assert model.conv_post.bias is not None
    model.conv_post.bias.zero_()
    model.conv_post.bias[: model.config.fft // 2 + 1] = QUIET
