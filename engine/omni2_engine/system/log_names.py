"""Whose conversation a line of the log belongs to.

The name is a context variable, so that a coroutine has it with what it awaits and the tasks it begins. Threads do not
inherit it: what the engine does on one for a conversation is `carried` there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

NO_CONVERSATION = "-"
conversation: ContextVar[str] = ContextVar("omni2_conversation", default=NO_CONVERSATION)


class NamesConversation(logging.Filter):
    """Gives each record `conversation`, for a handler's format; it lets all pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Name it."""
        record.conversation = conversation.get()
        return True


def carried(work: Callable[P, T]) -> Callable[P, T]:
    """The work under the name that is in force here, on any thread."""
    context = copy_context()

    def run(*arguments: P.args, **named: P.kwargs) -> T:
        return context.copy().run(work, *arguments, **named)

    return run


class CarryingExecutor(ThreadPoolExecutor):
    """Threads whose work has the name that was in force where it was submitted."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `ThreadPoolExecutor`."""
        return super().submit(carried(fn), *args, **kwargs)
