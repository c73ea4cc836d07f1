"""A live conversation whose events a test writes itself: what happens, and when, is then the test's."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any

import numpy as np

from omni2_engine.live.events import Event
from omni2_engine.model.config import Capabilities
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.metrics import TurnMetrics
from omni2_serve.host import Host

RATE = 24_000


class ScriptedConversation:
    """Stands for a `LiveConversation`.

    Attributes:
        calls: (name, arguments) of every call.
        fed, frames: samples that were fed, and themselves.
        unheard: see `LiveConversation`.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.fed = 0
        self.unheard = 0.0
        self.frames: list[Any] = []
        self._events: deque[Event] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def happens(self, *events: Event) -> None:
        """These events are next; callable from any thread."""
        with self._lock:
            self._events.extend(events)
            self._tell()

    def _tell(self) -> None:
        if self._wake is not None:
            self._wake[0].call_soon_threadsafe(self._wake[1].set)

    def feed(self, frame: Any, sample_rate: int = 16_000) -> None:
        self.fed += len(frame)
        self.frames.append(frame)

    def _note(self, name: str, **arguments: Any) -> None:
        self.calls.append((name, arguments))

    def commit(self) -> None:
        self._note("commit")

    def clear(self) -> None:
        self._note("clear")

    def say(self, text: str) -> None:
        self._note("say", text=text)

    def respond(self, **options: Any) -> None:
        self._note("respond", **options)

    def answered(self, text: str) -> None:
        self._note("answered", text=text)

    def interrupt(self, heard: float | None = None) -> None:
        self._note("interrupt", heard=heard)

    def played(self, seconds: float) -> None:
        self._note("played", seconds=seconds)

    def truncate(self, heard: float) -> None:
        self._note("truncate", heard=heard)

    def update(self, **options: Any) -> None:
        self._note("update", **options)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._tell()

    def __aiter__(self) -> ScriptedConversation:
        return self

    async def __anext__(self) -> Event:
        while True:
            with self._lock:
                if self._events:
                    return self._events.popleft()
                if self._closed:
                    raise StopAsyncIteration
                arrived = asyncio.Event()
                self._wake = asyncio.get_running_loop(), arrived
            await arrived.wait()


class Script:
    """A host of scripted conversations.

    Attributes:
        conversations: all that were opened.
    """

    def __init__(self) -> None:
        self.conversations: list[ScriptedConversation] = []
        self.host = Host(
            name="scripted",
            voices=["own", "other"],
            capabilities=Capabilities(),
            rate=RATE,
            most_tokens=256,
            soft_end=None,
            check_typed=lambda text: None,
            check_answer=lambda text: None,
            check_instructions=lambda text: None,
            open=self._open,
            session=self._open,
            waiting=lambda: 0,
            memory=lambda: 0,
        )

    def _open(self, voice: str, detection: Any, system: str | None) -> Any:
        self.conversations.append(ScriptedConversation())
        self.conversations[-1]._note("open", voice=voice, detection=detection, system=system)
        return self.conversations[-1]


def chunk(index: int, seconds: float = 0.5, start_in: float = 0.0, spoken: str = "", final: bool = False) -> Chunk:
    """A piece of sound behind pieces of the same length."""
    pcm = np.full(round(seconds * RATE), 0.25, np.float32)
    return Chunk(pcm, RATE, index, index * seconds, "", spoken, 0, final, "end" if final else None, start_in)


METRICS = TurnMetrics(
    prompt_positions=40, speech_positions=30, reused_positions=10, text_tokens=5, speech_tokens=20, audio_seconds=1.0
)
