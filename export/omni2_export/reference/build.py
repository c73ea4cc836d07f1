"""Checkpoint to reference modules: weights map by name, and a name too many or too few is an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from omni2_engine.model.config import ModelConfig
from omni2_export.checkpoint import Checkpoint, Tensors
from omni2_export.reference.fusion import TorchFusion
from omni2_export.reference.qwen2 import Qwen2
from omni2_export.reference.solver import TorchFlow
from omni2_export.reference.vocoder import HiFT
from omni2_export.reference.whisper import TorchSpeechEncoder

Module = TypeVar("Module", bound=nn.Module)


def load_module(make: Callable[[], Module], tensors: Tensors) -> Module:
    """Make a module and give it a checkpoint module's weights as float32.

    Raises:
        RuntimeError: a name or shape differs (torch names them all).
    """
    with torch.device("meta"):  # nothing is allocated or initialised that the checkpoint then overwrites
        module = make()
    state = {name: torch.from_numpy(np.require(tensors.read(name), requirements="W")) for name in tensors.names()}
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def load_encoder(checkpoint: Checkpoint) -> TorchSpeechEncoder:
    """Whisper encoder with its projector."""
    return load_module(lambda: TorchSpeechEncoder(checkpoint.config.encoder), checkpoint.modules["encoder"])


def load_llm(checkpoint: Checkpoint) -> Qwen2:
    """The language model."""
    return load_module(lambda: Qwen2(checkpoint.config.llm), checkpoint.modules["llm"])


def load_speech_lm(checkpoint: Checkpoint) -> Qwen2:
    """The speech language model."""
    return load_module(lambda: Qwen2(checkpoint.config.speech_lm), checkpoint.modules["speech_lm"])


def load_fusion(checkpoint: Checkpoint) -> TorchFusion:
    """Gate fusion."""
    return load_module(lambda: TorchFusion(checkpoint.config.fusion), checkpoint.modules["fusion"])


def load_flow(checkpoint: Checkpoint) -> TorchFlow:
    """Flow encoder, estimator and solver."""
    config = checkpoint.config
    return load_module(lambda: TorchFlow(config.flow_encoder, config.estimator), checkpoint.modules["flow"])


def load_vocoder(checkpoint: Checkpoint) -> HiFT:
    """The vocoder."""
    return load_module(lambda: HiFT(checkpoint.config.vocoder), checkpoint.modules["vocoder"])


@dataclass(frozen=True)
class Reference:
    """All modules of one model, float32 on the CPU."""

    config: ModelConfig
    encoder: TorchSpeechEncoder
    llm: Qwen2
    fusion: TorchFusion
    speech_lm: Qwen2
    flow: TorchFlow
    vocoder: HiFT


def load_reference(checkpoint: Checkpoint) -> Reference:
    """Every module of a checkpoint."""
    return Reference(
        checkpoint.config,
        load_encoder(checkpoint),
        load_llm(checkpoint),
        load_fusion(checkpoint),
        load_speech_lm(checkpoint),
        load_flow(checkpoint),
        load_vocoder(checkpoint),
    )
