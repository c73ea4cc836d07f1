"""How much a server takes on before it says no."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class ServiceLimits:
    """Bounds on what clients may ask of a server; times in seconds.

    Args:
        sessions: Realtime sessions at once.
        requests: chat completions at once.
        message: bytes of a WebSocket message, or of a request's body.
        idle: without a message, after which a session is closed.
        length: of a session.
        ahead: of sound that a client may have sent more than could have been spoken since it began; it is then read
            no faster than it could be spoken. A recording may be sent at once if it is shorter.
        append: of sound in one event.
        uncommitted: of sound that a client without turn detection may send before it commits it.
        unheard: of sound that was sent and that the processor has not come to, before the session is closed: the
            machine has too much to do. More than `ahead`.
        unread: for which a client may leave what it is sent unread, before the connection is given up.
        drain: that a server which is to stop waits for answers to end.
    """

    sessions: int = 4
    requests: int = 4
    message: int = 4 * MIB
    idle: float = 600.0
    length: float = 3600.0
    ahead: float = 60.0
    append: float = 60.0
    uncommitted: float = 120.0
    unheard: float = 120.0
    unread: float = 20.0
    drain: float = 60.0
