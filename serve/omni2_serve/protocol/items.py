"""The items of a conversation, in their order."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from omni2_serve.protocol.client_events import NewItem, Part
from omni2_serve.protocol.errors import RequestError
from omni2_serve.protocol.ids import new_id

MOST_ITEMS = 4_096
ROOT = "root"
Role = Literal["user", "assistant", "system"]
Status = Literal["in_progress", "completed", "incomplete"]


@dataclass
class Item:
    """One message.

    Args:
        role: who said it.
        text: what was typed, or is answered; of the user's speech what a recogniser has written down.
        spoken: by voice.
        status: of its making.
        id: its name.
        answered: an answer to it has begun.
        given: an answer that was made elsewhere.
        interrupted: of a spoken answer: the model's memory of it was cut when the user began to speak.
        marks: of a spoken answer: (seconds of sound before a piece, the answer's text up to what it speaks).
        seconds: of sound that the client was sent.
    """

    role: Role
    text: str = ""
    spoken: bool = False
    status: Status = "completed"
    id: str = field(default_factory=lambda: new_id("item"))
    answered: bool = False
    given: bool = False
    interrupted: bool = False
    marks: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0

    def shown(self, empty: bool = False) -> dict[str, Any]:
        """For an event; `empty` before anything of its content is there."""
        return {
            "id": self.id,
            "object": "realtime.item",
            "type": "message",
            "status": self.status,
            "role": self.role,
            "content": [] if empty else [self._part()],
        }

    def _part(self) -> dict[str, Any]:
        if self.role != "assistant":
            if self.spoken:
                return {"type": "input_audio", "audio": None, "transcript": self.text or None}
            return {"type": "input_text", "text": self.text}
        if self.spoken:
            return {"type": "output_audio", "audio": None, "transcript": self.text}
        return {"type": "output_text", "text": self.text}

    def cut(self, heard: float) -> None:
        """Leave the text whose speech had begun after `heard` seconds."""
        reached = bisect_left(self.marks, heard, key=lambda mark: mark[0])
        self.text = self.marks[reached - 1][1] if reached else ""
        del self.marks[reached:]


class ItemList:
    """A conversation's items."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._answers: deque[Item] = deque(maxlen=MOST_ITEMS)  # of all turns, also those that were deleted

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: Item) -> bool:
        return any(item is known for known in self._items)

    @property
    def last(self) -> str | None:
        """Name of the last one."""
        return self._items[-1].id if self._items else None

    @property
    def last_answer(self) -> Item | None:
        """The answer of the last turn, also when it was deleted: the turn stays in the model's memory."""
        return self._answers[-1] if self._answers else None

    @property
    def last_made(self) -> Item | None:
        """The last answer that was made here, also when it was deleted."""
        return next((item for item in reversed(self._answers) if not item.given), None)

    @property
    def system(self) -> str:
        """All that the client added as "system" and did not have answered."""
        return "\n\n".join(item.text for item in self._items if item.role == "system" and not item.answered)

    def unanswered(self, role: Role = "user") -> list[Item]:
        """The items that no answer has begun for."""
        return [item for item in self._items if item.role == role and not item.answered]

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Put an item in its place.

        Args:
            item: the new one.
            after: name of the one before; "root" for the beginning; None for the end.

        Returns:
            Name of the one before; None at the beginning.

        Raises:
            RequestError: there is no such item, one of this name is there, or there are too many.
        """
        if len(self._items) >= MOST_ITEMS:
            raise RequestError(
                f"a conversation holds {MOST_ITEMS} items", "open another session", code="too_many_items"
            )
        if any(item.id == known.id for known in self._items):
            raise RequestError(
                "an item of this id is in the conversation already",
                "leave the id out, or use another",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        place = len(self._items)
        if after is not None:
            place = 0 if after == ROOT else self._index(after, "create", "previous_item_id") + 1
        self._items.insert(place, item)
        if item.role == "assistant":
            self._answers.append(item)
        return self._items[place - 1].id if place else None

    def append(self, item: Item) -> str | None:
        """Put an item of the server's own at the end; the oldest one goes where there are too many.

        Returns:
            Name of the one before; None at the beginning.
        """
        if len(self._items) >= MOST_ITEMS:
            del self._items[0]
        return self.add(item)

    def get(self, name: str, use: str) -> Item:
        """The item of this name.

        Args:
            name: of the item.
            use: what is to be done with it: "retrieve", "delete" or "truncate".

        Raises:
            RequestError: there is none.
        """
        return self._items[self._index(name, use, "item_id")]

    def delete(self, item: Item) -> None:
        """Take an item out of the list."""
        del self._items[self._place(item)]

    def remove(self, item: Item) -> None:
        """Take out an item that the model has not taken: it never was there."""
        self.delete(item)
        if item.role == "assistant":
            self._answers.remove(item)

    def before(self, item: Item) -> str | None:
        """Name of the one before it."""
        place = self._place(item)
        return self._items[place - 1].id if place else None

    def after(self, item: Item) -> list[Item]:
        """All that follow it."""
        return self._items[self._place(item) + 1 :]

    def _place(self, item: Item) -> int:
        return next(index for index, known in enumerate(self._items) if known is item)

    def _index(self, name: str, use: str, param: str) -> int:
        for index, item in enumerate(self._items):
            if item.id == name:
                return index
        code = f"item_{use}_invalid_{param}"
        raise RequestError("the conversation has no item of this id", code=code, param=param)


@dataclass(frozen=True)
class NewMessage:
    """What a client's new item says.

    Args:
        role: who said it.
        text: that was typed or answered; empty of the user's speech.
        spoken: by voice.
        sound: of the user's speech, pieces in base64; empty elsewhere.
    """

    role: Role
    text: str = ""
    spoken: bool = False
    sound: tuple[str, ...] = ()


def checked(new: NewItem) -> NewMessage:
    """What a client's new item says. The user's speech that comes as a transcript alone counts as typed.

    Raises:
        RequestError: the model cannot take such an item.
    """
    if new.type != "message" or new.role is None:
        raise _unsupported(
            f"an item of type {new.type[:40]!r} cannot be taken", "use messages: the model calls no tools"
        )
    if new.role == "assistant":
        return _answer(new.content)
    sound = [part.audio for part in new.content if part.type == "input_audio" and part.audio]
    texts = [text for part in new.content if not (part.type == "input_audio" and part.audio) and (text := _said(part))]
    if len(sound) + len(texts) < len(new.content) or not new.content:
        raise _unsupported("a message is of input_text or of input_audio, and not empty", "leave other content out")
    if sound and (texts or new.role != "user"):
        raise _unsupported("a message is either spoken by the user or typed", "send one item for each")
    return NewMessage(new.role, "\n".join(texts), bool(sound), tuple(sound))


def _said(part: Part) -> str | None:
    """Text of the user's, or the system's."""
    if part.type == "input_audio":
        return part.transcript
    return part.text if part.type == "input_text" else None


def _answer(content: list[Part]) -> NewMessage:
    """An answer that was given elsewhere; what was heard of it may be nothing."""
    spoken = [part.transcript for part in content if part.type in ("output_audio", "audio")]
    typed = [part.text for part in content if part.type in ("output_text", "text")]
    texts = [text for text in (*spoken, *typed) if text is not None]
    if not content or len(texts) < len(content) or (spoken and typed):
        raise _unsupported(
            "an answer is of output_text with its text, or of output_audio with its transcript",
            "send one of these: of an answer's sound nothing enters the model's memory",
        )
    return NewMessage("assistant", "".join(texts), bool(spoken))


def _unsupported(problem: str, remedy: str) -> RequestError:
    return RequestError(problem, remedy, code="unsupported_item", param="item")
