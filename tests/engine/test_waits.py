"""Work that waits, for a coroutine: it is told what was cancelled."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, Future

import pytest

from omni2_engine.system import waits
from omni2_engine.system.waits import Waits


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("task", [False, True])
@pytest.mark.parametrize("future", [False, True])
def test_work_is_told_whether_its_task_was_cancelled_or_what_it_waits_for(
    before: bool, task: bool, future: bool
) -> None:
    """The task may have been cancelled before, too: this is what it does about that."""
    awaited: Future[str] = Future()
    told: list[BaseException] = []

    def work() -> Waits[str]:
        try:
            got: str = yield awaited
        except BaseException as error:
            told.append(error)
            raise
        return got

    async def main() -> None:
        if before:
            running = asyncio.current_task()
            assert running is not None
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(0)
        waiting = asyncio.Event()
        doing = asyncio.current_task()
        assert doing is not None

        async def stop() -> None:
            await waiting.wait()
            if future:
                awaited.cancel()
            if task:
                doing.cancel()
            if not task and not future:
                awaited.set_result("done")

        stopping = asyncio.create_task(stop())
        try:
            assert await waits.arun(work(), on_wait=lambda _: waiting.set()) == "done"
        finally:
            await stopping

    expected = asyncio.CancelledError if task else CancelledError if future else None
    if expected is None:
        asyncio.run(main())
        assert not told
    else:
        with pytest.raises(expected):
            asyncio.run(main())
        assert [type(error) for error in told] == [expected]
