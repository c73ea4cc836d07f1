"""The ways in which a session ends, however its client is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from omni2_serve.protocol.errors import SERVER, RequestError
from omni2_serve.realtime.failures import GOING_AWAY, INTERNAL, POLICY, ClientGone, SessionOver, in_words
from omni2_serve.realtime.session import RealtimeSession
from omni2_serve.service import Service


async def until_over(
    session: RealtimeSession,
    service: Service,
    *own: Coroutine[Any, Any, SessionOver | None],
    quiet: asyncio.Event | None = None,
) -> SessionOver | None:
    """Wait for the first reason to end a session; None where the client left.

    Args:
        session: has begun.
        service: may stop, and bounds how long a session lasts.
        own: of the connection, such as reading from it. What is left of them is cancelled.
        quiet: set while no answer is played, where that is the server's part. A service that stops waits for it, too,
            for as long as it waits for answers.
    """
    tasks = [
        asyncio.create_task(reason)
        for reason in (*own, _drained(session, service, quiet), _expired(service), _failed(session))
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _drained(session: RealtimeSession, service: Service, quiet: asyncio.Event | None) -> SessionOver:
    waits = [session.idle] if quiet is None else [session.idle, quiet]
    await service.draining.wait()
    while not all(event.is_set() for event in waits):
        for event in waits:
            await event.wait()
    error = RequestError("the server stops", "use another", code="server_stopping", kind=SERVER)
    return SessionOver(GOING_AWAY, error)


async def _expired(service: Service) -> SessionOver:
    await asyncio.sleep(service.limits.length)
    problem = f"the session has lasted {service.limits.length:g} s"
    return SessionOver(POLICY, RequestError(problem, "open another", code="session_expired"))


async def _failed(session: RealtimeSession) -> SessionOver | None:
    """The session broke from within."""
    try:
        await asyncio.shield(session.failed)
    except ClientGone:
        pass
    except SessionOver as over:
        return over
    except Exception as error:
        return SessionOver(INTERNAL, in_words(error))
    return None
