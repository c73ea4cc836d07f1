"""What sessions need of the engine behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omni2_engine import Session
from omni2_engine.live.conversation import LiveConversation
from omni2_engine.live.settings import Detection
from omni2_engine.model.config import Capabilities


@dataclass(frozen=True)
class Host:
    """A model that can be talked to.

    Args:
        name: of the model.
        voices: names, the default first.
        capabilities: what the model was taught, but where the server was told otherwise.
        rate: of the sound it makes, Hz.
        most_tokens: of text in an answer.
        soft_end: see `Detection`.
        check_typed: raises a `SettingError` for a typed turn that the model cannot be given.
        check_answer: the same for the text of an answer that was given elsewhere.
        check_instructions: the same for a system prompt.
        open: begins a conversation with a voice, turn detection and a system prompt; raises a `CapacityError` where
            there is no room for one.
        session: the same for turns one by one, with a voice and a system prompt.
        waiting: how many turns have made no sound yet.
        memory: bytes that conversations hold.
    """

    name: str
    voices: list[str]
    capabilities: Capabilities
    rate: int
    most_tokens: int
    soft_end: float | None
    check_typed: Callable[[str], None]
    check_answer: Callable[[str], None]
    check_instructions: Callable[[str], None]
    open: Callable[[str, Detection | None, str | None], LiveConversation]
    session: Callable[[str, str | None], Session]
    waiting: Callable[[], int]
    memory: Callable[[], int]
