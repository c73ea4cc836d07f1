"""omni2-engine: speech in, text and speech out, streamed, for LLaMA-Omni2 models.

from omni2_engine import Engine
engine = Engine.load("engines/llama-omni2-7b")
for chunk in engine.stream("question.wav"):
    play(chunk.pcm)
"""

import os
from importlib.metadata import version

# From 1.29 on ONNX Runtime writes a device id below the home directory and looks for a host to send usage data to. It
# reads this when it is first imported. Every package here that uses it imports this one before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from omni2_engine.answer import Answer
from omni2_engine.chunk import Chunk
from omni2_engine.engine import Engine
from omni2_engine.errors import (
    AudioError,
    BackendError,
    BusyError,
    CapacityError,
    CheckpointError,
    ContextError,
    EngineDirectoryError,
    Omni2Error,
    SettingError,
)
from omni2_engine.metrics import TurnMetrics
from omni2_engine.options import Options
from omni2_engine.sampling import Sampling, Stream
from omni2_engine.session import Session

__all__ = [
    "Answer",
    "AudioError",
    "BackendError",
    "BusyError",
    "CapacityError",
    "CheckpointError",
    "Chunk",
    "ContextError",
    "Engine",
    "EngineDirectoryError",
    "Omni2Error",
    "Options",
    "Sampling",
    "Session",
    "SettingError",
    "Stream",
    "TurnMetrics",
]
__version__ = version("omni2-engine")
