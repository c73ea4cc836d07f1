"""omni2-engine: speech in, text and speech out, streamed, for LLaMA-Omni2 models.

from omni2_engine import Engine
engine = Engine.load("engines/llama-omni2-7b")
for chunk in engine.stream("question.wav"):
    play(chunk.pcm)
"""

import os
from importlib import import_module

# From 1.29 on ONNX Runtime writes a device id below the home directory and looks for a host to send usage data to. It
# reads this when it is first imported. Every package here that uses it imports this one before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

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

TYPE_CHECKING = False  # type checkers take it for true; `typing` would take longer to load than all of this
if TYPE_CHECKING:
    from omni2_engine.engine import Engine
    from omni2_engine.live.conversation import LiveConversation
    from omni2_engine.live.detection.smart_turn import SmartTurn
    from omni2_engine.live.settings import Detection
    from omni2_engine.sampling import Sampling, Stream
    from omni2_engine.sessions.answer import Answer
    from omni2_engine.sessions.earlier_turns import EarlierTurn
    from omni2_engine.sessions.prepared import Prepared
    from omni2_engine.sessions.prepared_turns import PreparedTurns
    from omni2_engine.sessions.session import Session
    from omni2_engine.sessions.turn_record import TurnRecord
    from omni2_engine.turn.chunk import Chunk
    from omni2_engine.turn.metrics import TurnMetrics
    from omni2_engine.turn.options import Options

    __version__: str

__all__ = [
    "Answer",
    "AudioError",
    "BackendError",
    "BusyError",
    "CapacityError",
    "CheckpointError",
    "Chunk",
    "ContextError",
    "Detection",
    "EarlierTurn",
    "Engine",
    "EngineDirectoryError",
    "LiveConversation",
    "Omni2Error",
    "Options",
    "Prepared",
    "PreparedTurns",
    "Sampling",
    "Session",
    "SettingError",
    "SmartTurn",
    "Stream",
    "TurnMetrics",
    "TurnRecord",
]

MODULES = {
    "Answer": "sessions.answer",
    "Chunk": "turn.chunk",
    "Detection": "live.settings",
    "EarlierTurn": "sessions.earlier_turns",
    "Engine": "engine",
    "LiveConversation": "live.conversation",
    "Options": "turn.options",
    "Prepared": "sessions.prepared",
    "PreparedTurns": "sessions.prepared_turns",
    "Sampling": "sampling",
    "Session": "sessions.session",
    "SmartTurn": "live.detection.smart_turn",
    "Stream": "sampling",
    "TurnMetrics": "turn.metrics",
    "TurnRecord": "sessions.turn_record",
}


def __getattr__(name: str) -> object:
    """Load a name where it is first used: the command line has to answer Ctrl-C before the libraries are loaded."""
    if name == "__version__":
        from importlib.metadata import version

        return version("omni2-engine")
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
