"""The answer to one turn, as it comes: an iterator of chunks, for a thread or for a coroutine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

from omni2_engine.errors import BusyError
from omni2_engine.sessions.runtime import Runtime
from omni2_engine.turn.chunk import CANCELLED, Chunk, cancelled_chunk
from omni2_engine.turn.output import ChunkQueue, DeadlinePassed
from omni2_engine.turn.queue import SessionQueue

log = logging.getLogger("omni2_engine.sessions")
ERROR = "error"  # how a turn ended, beside its finish reasons


class Answer:
    """A turn that has begun; made by `Session.stream`.

    Iterate it with `for` or `async for`. The turn goes on by itself, whether its chunks are taken or not. Closing or
    dropping an answer ends its turn, and the history keeps the text written so far.

    Args:
        runtime: of the session.
        output: where the chunks come.
        queue: runs the steps.
        end: ends the turn and cleans up behind it; may wait for a step that runs. A second time does nothing. It is
            told how the turn ended ("cancelled", "error", or None if its last chunk was taken), and whether to wait
            where another thread ends it already.
        deadline: moment of `time.monotonic` by which the first chunk must be there; None for no such moment.
        text: all that the turn has written, once it has ended.
    """

    def __init__(
        self,
        runtime: Runtime,
        output: ChunkQueue,
        queue: SessionQueue,
        end: Callable[[str | None, bool], None],
        deadline: float | None,
        text: Callable[[], str],
    ) -> None:
        self._runtime = runtime
        self._output = output
        self._queue = queue
        self._end = end
        self._deadline = deadline
        self._text = text
        self._over = False
        self._last: Chunk | None = None
        self._told = 0  # characters of text that were taken with chunks

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        """Wait for the next chunk.

        Raises:
            BusyError: the first chunk was not there by the turn's deadline.
            Omni2Error: what a step of the turn raised.
        """
        if self._over:
            raise StopIteration
        try:
            self._run_steps()
            chunk = self._output.get(self._timeout())
        except DeadlinePassed:
            self._finish(ERROR)
            raise self._late() from None
        except BaseException as error:
            self._finish(_outcome(error))
            raise
        if chunk is None:
            self.close()
            if (chunk := self._missing_end()) is None:
                raise StopIteration
        return self._taken(chunk)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """Wait for the next chunk without a thread. Errors as `__next__`."""
        if self._over:
            raise StopAsyncIteration
        try:
            self._run_steps()
            chunk = await self._output.aget(self._timeout())
        except DeadlinePassed:
            await self._afinish(ERROR)
            raise self._late() from None
        except BaseException as error:
            await self._afinish(_outcome(error))
            raise
        if chunk is None:
            await self.aclose()
            if (chunk := self._missing_end()) is None:
                raise StopAsyncIteration
        return self._taken(chunk)

    def close(self) -> None:
        """End the turn, once a step that runs is done."""
        self._finish(None if self._complete else CANCELLED)

    async def aclose(self) -> None:
        """`close` for a coroutine."""
        await self._afinish(None if self._complete else CANCELLED)

    @property
    def _complete(self) -> bool:
        """Whether the last chunk was taken."""
        return self._last is not None and self._last.final

    def _finish(self, outcome: str | None) -> None:
        self._over = True
        self._end(outcome, True)

    async def _afinish(self, outcome: str | None) -> None:
        self._over = True
        loop = asyncio.get_running_loop()
        await asyncio.shield(loop.run_in_executor(self._runtime.helpers, self._end, outcome, True))

    def _taken(self, chunk: Chunk) -> Chunk:
        """Note a chunk that the consumer gets."""
        self._deadline, self._last = None, chunk
        self._told += len(chunk.text)
        return chunk

    def _missing_end(self) -> Chunk | None:
        """The last chunk of a turn that was cancelled before it made one."""
        if self._complete:
            return None
        rate = self._runtime.pipeline.config.vocoder.sample_rate
        return cancelled_chunk(self._last, self._text()[self._told :], rate)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self._over = True
            self._end(None if self._complete else CANCELLED, False)

    def _run_steps(self) -> None:
        """Where steps run on this thread: until there is a chunk."""
        while not self._output.ready and self._queue.run_step():
            pass

    def _timeout(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - monotonic(), 0.0)

    def _late(self) -> BusyError:
        return late(self._runtime)


def _outcome(error: BaseException) -> str:
    """How a turn ended whose consumer got an error: a step failed, or the consumer itself was stopped."""
    return ERROR if isinstance(error, Exception) else CANCELLED


def late(runtime: Runtime) -> BusyError:
    """The error for a turn whose deadline has passed."""
    log.info("turn ended: no sound by its deadline")
    return BusyError("the first sound did not come by the turn's deadline", runtime.waiting.expected)
