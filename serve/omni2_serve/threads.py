"""Work that would block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from omni2_engine.system.log_names import CarryingExecutor

T = TypeVar("T")


async def on_a_thread(work: Callable[[], T]) -> T:
    """Await work that is done on a thread of its own.

    The thread ends with it. Those of asyncio's own executor stay, so that a server which has had many clients at once
    would hold more threads than one which has not.

    Args:
        work: to be done; what it raises is raised here.
    """
    thread = CarryingExecutor(1, thread_name_prefix="omni2-serve")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
    finally:
        thread.shutdown(wait=False)
