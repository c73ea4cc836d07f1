"""What ends a session before its time, and an engine's errors in the words of the interface."""

from __future__ import annotations

import logging

from omni2_engine.errors import BusyError, CapacityError, Omni2Error
from omni2_serve.protocol.errors import SERVER, RequestError

GOING_AWAY, POLICY, INTERNAL, TRY_LATER = 1001, 1008, 1011, 1013  # of RFC 6455 and its registry
log = logging.getLogger(__name__)


class SessionOver(Exception):
    """The session cannot go on.

    Args:
        code: that the WebSocket is closed with.
        error: the client is told it before.
    """

    def __init__(self, code: int, error: RequestError) -> None:
        self.code = code
        self.error = error
        super().__init__(error.message)


class ClientGone(Exception):
    """The client is not there any more, or does not read."""


def in_words(error: Exception) -> RequestError:
    """An engine's error for a client. Of one that is not meant for users nothing is told."""
    match error:
        case RequestError():
            return error
        case BusyError():
            return RequestError(error.problem, error.remedy, code="server_busy", kind=SERVER)
        case CapacityError():
            return RequestError("the server is full", "come back in a while", code="server_full", kind=SERVER)
        case Omni2Error():
            return RequestError(error.problem, error.remedy, code="invalid_value")
        case _:
            log.error("something failed that should not", exc_info=error)
            return RequestError("something went wrong in the server", code="internal_error", kind=SERVER)
