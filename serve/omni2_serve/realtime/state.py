"""What a session knows between two events: its settings, its items, what was asked for and is not there yet."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from omni2_serve.protocol.ids import new_id
from omni2_serve.protocol.items import Item, ItemList
from omni2_serve.protocol.responses import ResponseSettings
from omni2_serve.protocol.session_config import SessionConfig
from omni2_serve.realtime.answer import SentAnswer


@dataclass(frozen=True)
class PendingCommit:
    """A client's commit that the conversation has not carried out yet.

    Args:
        event_id: of the client's event.
        item: that the sound becomes; None for a new one.
        since: position from which on its sound lies.
        later: an answer is owed that does not answer it.
    """

    event_id: str | None
    item: Item | None = None
    since: int = 0
    later: bool = False


@dataclass(frozen=True)
class PendingAnswer:
    """An answer that the client gave, and that the conversation has not taken yet.

    Args:
        event_id: of the client's event.
        item: that holds it.
    """

    event_id: str | None
    item: Item


@dataclass
class OwedAnswer:
    """An answer that was asked for and has not begun.

    Args:
        settings: see `ResponseSettings`.
        asked_at: when, by `time.monotonic`.
        cancelled: by the client, before it began.
        later: items that came after it was asked for; the next answer is theirs.
    """

    settings: ResponseSettings
    asked_at: float
    cancelled: bool = False
    later: list[Item] = field(default_factory=list)


@dataclass(eq=False)
class RealtimeState:
    """One session; the client's events and the model's both change it, one at a time.

    Args:
        config: the settings in force.

    Attributes:
        name: of the conversation.
        items: of the conversation.
        pending: what the conversation has still to take, in the order in which it does.
        owed: the answer that was asked for; None where none is, or it has begun.
        answer: the one that the client is being sent.
        sounded: sound was sent.
        speaking: name of the item that the speech which goes on will be.
        decided_at: when the last speech was found to be over, by `time.monotonic`.
        uncommitted: seconds of sound since the last commit or clear.
        idle: set while no answer is made or owed.
    """

    config: SessionConfig
    name: str = field(default_factory=lambda: new_id("conv"))
    items: ItemList = field(default_factory=ItemList)
    pending: deque[PendingCommit | PendingAnswer] = field(default_factory=deque)
    owed: OwedAnswer | None = None
    answer: SentAnswer | None = None
    sounded: bool = False
    speaking: str | None = None
    decided_at: float | None = None
    uncommitted: float = 0.0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    @property
    def commits(self) -> list[PendingCommit]:
        """Those of the client that are not carried out yet."""
        return [pending for pending in self.pending if isinstance(pending, PendingCommit)]

    def owe(self, owed: OwedAnswer) -> None:
        """An answer is asked for."""
        self.owed = owed
        self.idle.clear()

    def set_idle(self) -> None:
        """An answer has ended, or will not come."""
        if self.answer is None and self.owed is None:
            self.idle.set()

    def system(self, config: SessionConfig) -> str | None:
        """The system prompt: instructions, and what the client's system items say; None for the model's own."""
        return "\n\n".join(text for text in (config.instructions, self.items.system) if text) or None
