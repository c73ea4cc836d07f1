"""How a replica learns that Ray stops it.

Ray sends a replica that it stops no more requests, waits until those that run have ended, and calls nothing of ours
before. But a request is a conversation here, which may go on for an hour. So a replica holds a handle on its own
deployment: the handle's router is told which replicas requests go to, and the replica is no longer among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import ReplicaID, RunningReplica

from ray import serve

Listener = Callable[[set[ReplicaID]], None]
_listeners: list[Listener] = []  # of this process: Ray makes the routers itself, and of a copy of their module


def follow(draining: asyncio.Event) -> DeploymentHandle[Any]:
    """Have an event of this event loop set while Ray sends the replica that calls this no requests.

    It is set when the replica is stopped, and for a moment when Ray gives it other options without a restart.

    Returns:
        The handle; it listens for as long as it is kept.
    """
    context, loop = serve.get_replica_context(), asyncio.get_running_loop()
    begun = False

    def listen(replicas: set[ReplicaID]) -> None:
        nonlocal begun
        running = context.replica_id in replicas
        begun = begun or running
        if begun:
            loop.call_soon_threadsafe(draining.clear if running else draining.set)

    _listeners.append(listen)
    handle: DeploymentHandle[Any] = serve.get_deployment_handle(context.deployment, context.app_name)
    return handle.options()  # which makes its router


def announce(replicas: Iterable[RunningReplica]) -> None:
    """Called by every router of this process, in its thread: the replicas that requests go to are these."""
    running = {replica.replica_id for replica in replicas}
    for listen in _listeners:
        listen(running)
