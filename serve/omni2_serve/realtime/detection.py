"""The session's turn detection in the engine's terms."""

from __future__ import annotations

from omni2_engine.live.settings import Detection
from omni2_serve.protocol.session_config import SemanticVad, ServerVad

LEAST, MOST = 0.01, 0.99  # the engine wants a probability; clients may say 0 and 1


def detection_of(settings: ServerVad | SemanticVad | None, soft_end: float | None) -> Detection | None:
    """What the engine is to do.

    Args:
        settings: of the session; None where the client says when a turn ends.
        soft_end: see `Detection`.
    """
    if settings is None:
        return None
    if isinstance(settings, SemanticVad):
        return Detection(
            eagerness=settings.eagerness,
            soft_end=soft_end,
            create_response=settings.create_response,
            interrupt_response=settings.interrupt_response,
        )
    return Detection(
        threshold=min(max(settings.threshold, LEAST), MOST),
        prefix_padding=settings.prefix_padding_ms / 1000,
        silence=settings.silence_duration_ms / 1000,
        soft_end=soft_end,
        create_response=settings.create_response,
        interrupt_response=settings.interrupt_response,
    )
