"""The answer to one turn, as it comes: an iterator of chunks, for a thread or for a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

from omni2_engine.chunk import Chunk
from omni2_engine.errors import BusyError
from omni2_engine.runtime import Runtime
from omni2_engine.schedule.base import SessionQueue
from omni2_engine.turn.output import ChunkQueue


class Answer:
    """A turn that has begun; made by `Session.stream`.

    Iterate it with `for` or `async for`. The turn goes on by itself, whether its chunks are taken or not. Closing or
    dropping an answer ends its turn, and the history keeps the text written so far.

    Args:
        runtime: of the session.
        output: where the chunks come.
        queue: runs the steps.
        end: ends the turn and cleans up behind it; may wait for a step that runs. A second time does nothing.
        deadline: moment of `time.monotonic` by which the first chunk must be there; None for no such moment.
    """

    def __init__(
        self,
        runtime: Runtime,
        output: ChunkQueue,
        queue: SessionQueue,
        end: Callable[[], None],
        deadline: float | None,
    ) -> None:
        self._runtime = runtime
        self._output = output
        self._queue = queue
        self._end = end
        self._deadline = deadline
        self._over = False

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
        except TimeoutError:
            self.close()
            raise self._late() from None
        except BaseException:
            self.close()
            raise
        if chunk is None:
            self.close()
            raise StopIteration
        self._deadline = None
        return chunk

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """Wait for the next chunk without a thread. Errors as `__next__`."""
        if self._over:
            raise StopAsyncIteration
        try:
            self._run_steps()
            chunk = await self._output.aget(self._timeout())
        except TimeoutError:
            await self.aclose()
            raise self._late() from None
        except BaseException:
            await self.aclose()
            raise
        if chunk is None:
            await self.aclose()
            raise StopAsyncIteration
        self._deadline = None
        return chunk

    def close(self) -> None:
        """End the turn, once a step that runs is done."""
        self._over = True
        self._end()

    async def aclose(self) -> None:
        """`close` for a coroutine."""
        self._over = True
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._runtime.helpers, self._end))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self.close()

    def _run_steps(self) -> None:
        """Where steps run on this thread: until there is a chunk."""
        while not self._output.ready and self._queue.run_step():
            pass

    def _timeout(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - monotonic(), 0.0)

    def _late(self) -> BusyError:
        return late(self._runtime)


def late(runtime: Runtime) -> BusyError:
    """The error for a turn whose deadline has passed."""
    return BusyError("the first sound did not come by the turn's deadline", runtime.waiting.expected)
