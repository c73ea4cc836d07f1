"""The given tiny checkpoint and its reference modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omni2_export.checkpoint import Checkpoint, open_checkpoint
from omni2_export.reference.build import Reference, load_reference


@pytest.fixture(scope="session")
def checkpoint(shared: Path) -> Checkpoint:
    tiny = shared / "checkpoints" / "tiny"
    return open_checkpoint(
        tiny / "omni2_tiny", decoder=tiny / "cosy2_decoder", speech_encoder=tiny / "speech_encoder" / "large-v3.pt"
    )


@pytest.fixture(scope="session")
def reference(checkpoint: Checkpoint) -> Reference:
    torch.set_num_threads(1)
    return load_reference(checkpoint)
