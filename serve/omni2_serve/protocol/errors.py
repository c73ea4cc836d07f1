"""What is wrong with a client's event or request, in the words of the interface."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from omni2_engine.errors import Omni2Error

INVALID = "invalid_request_error"
SERVER = "server_error"
SHOWN = 200  # characters of a message that may come from the client


class RequestError(Omni2Error):
    """A client asked for something that is not there, or makes no sense. The session goes on.

    Args:
        problem, remedy: see `Omni2Error`.
        code: a word for programs, such as "invalid_value".
        param: path of the field that is wrong, such as "session.audio.output.voice".
        kind: "invalid_request_error", or "server_error" where the client is not to blame.
    """

    def __init__(
        self, problem: str, remedy: str = "", *, code: str, param: str | None = None, kind: str = INVALID
    ) -> None:
        self.code = code
        self.param = param
        self.kind = kind
        super().__init__(problem, remedy)

    @property
    def message(self) -> str:
        """Both clauses as one or two sentences."""
        sentences = [_sentence(text) for text in (self.problem, self.remedy) if text]
        return " ".join(sentences)


def invalid(error: ValidationError, path: str = "") -> RequestError:
    """The first thing that pydantic finds wrong.

    Args:
        error: from validating an event.
        path: of the object that was validated, such as "session".
    """
    first: Any = error.errors(include_url=False, include_context=False)[0]
    words = [str(word) for word in (*([path] if path else []), *first["loc"])]
    param = ".".join(words)[:SHOWN] or None
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return RequestError(f"{param or 'the event'}: {first['msg']}"[:SHOWN], code=code, param=param)


def _sentence(text: str) -> str:
    capital = text[0].upper() + text[1:]
    return capital if capital.endswith(".") else f"{capital}."
