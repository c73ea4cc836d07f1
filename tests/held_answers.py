"""Answers that wait for what is to happen in their middle, so that it needs no lucky moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from omni2_engine.live.conversation import LiveConversation
from omni2_engine.live.events import Event, Failed, Finished, Interrupted, SoundMade
from omni2_serve.host import Host

LOOK = 0.01  # seconds between two looks at what has changed


class HeldAnswers:
    """A live conversation whose answers go no further than their first sound until they are interrupted.

    No more of an answer is taken from the conversation, so the engine makes no more of it, and it is not over, however
    long the interruption takes to come. Once it has come, the turn is over and stands in the conversation's history.

    Args:
        conversation: answers.
        sound: seconds of an answer that are passed on, at least its first chunk; more must follow.
        held: asked again and again: whether answers are held now.
        short: only `held` lets an answer go on. So the engine may have made all of it, as it has of one of two chunks.
    """

    def __init__(
        self, conversation: LiveConversation, sound: float, held: Callable[[], bool], short: bool = False
    ) -> None:
        self._conversation = conversation
        self._sound = sound
        self._held = held
        self._short = short
        self._passed = 0.0  # seconds of the present answer
        self._over = 0  # turns that were over before it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conversation, name)

    def __aiter__(self) -> HeldAnswers:
        return self

    async def __anext__(self) -> Event:
        while self._passed > self._sound and self._held() and (self._short or len(self.history) == self._over):
            await asyncio.sleep(LOOK)
        event = await anext(self._conversation)
        match event:
            case SoundMade():
                if not self._passed:
                    self._over = len(self.history)
                self._passed += event.chunk.duration
            case Interrupted() | Finished() | Failed():
                self._passed = 0.0
        return event


def holding(host: Host, sound: float = 0.0, held: Callable[[], bool] = lambda: True, short: bool = False) -> Host:
    """The host with conversations whose answers are held, see `HeldAnswers`."""
    return replace(host, open=lambda *settings: HeldAnswers(host.open(*settings), sound, held, short))  # type: ignore[arg-type, return-value]
