"""Work that may have to wait, written once for threads and coroutines: a generator that yields what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Executor, Future
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")
Waits = Generator[Future[Any], Any, T]  # yields futures, is sent their results or thrown their errors, returns a T
OnWait = Callable[[Future[Any]], None]


def run(work: Waits[T], until: float | None = None, on_wait: OnWait = lambda _: None) -> T:
    """Do the work on this thread.

    Args:
        work: not begun yet.
        until: a moment of `time.monotonic`; what is still waited for then gets a TimeoutError thrown in.
        on_wait: told each future before it is waited for.
    """
    try:
        future = next(work)
        while True:
            on_wait(future)
            try:
                result = future.result(_left(until))
            except BaseException as error:
                future = work.throw(error)
            else:
                future = work.send(result)
    except StopIteration as done:
        value: T = done.value
        return value


async def arun(work: Waits[T], until: float | None = None, on_wait: OnWait = lambda _: None) -> T:
    """`run` as a coroutine, which waits without a thread.

    The work is thrown `asyncio.CancelledError` where the task is cancelled, and `concurrent.futures.CancelledError`, as
    by `run`, where only the future is.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()  # how often before
    try:
        future = next(work)
        while True:
            on_wait(future)
            try:
                async with asyncio.timeout(_left(until)):
                    result = await asyncio.wrap_future(future)
            except asyncio.CancelledError as error:
                future = work.throw(error if task.cancelling() > cancelled else CancelledError())
            except BaseException as error:
                future = work.throw(error)
            else:
                future = work.send(result)
    except StopIteration as done:
        value: T = done.value
        return value


def here(work: Callable[[], T]) -> Waits[T]:
    """Done on the thread that runs it; it waits for nothing."""
    return work()
    yield  # which makes it a generator


def on_a_thread_of(executor: Executor, work: Callable[[], T]) -> Waits[T]:
    """Done on one of an executor's threads, while who runs it waits."""
    done: T = yield executor.submit(work)
    return done


def _left(until: float | None) -> float | None:
    """Seconds until that moment."""
    return None if until is None else max(until - monotonic(), 0.0)
