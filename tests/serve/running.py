"""A server in this process behind a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

from omni2_serve.app import make_app
from omni2_serve.server import DrainingServer, bound
from omni2_serve.service import Service

from .client import Client, connect


class RunningServer:
    """A server on a thread of its own.

    Attributes:
        service: behind it; touch it from its own loop only, see `call`.
        address: "127.0.0.1:port".
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        listening = bound("127.0.0.1", 0)
        self.address = f"127.0.0.1:{listening.getsockname()[1]}"
        self.server = DrainingServer(make_app(service), service)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(listening,), daemon=True)
        self._thread.start()
        while not self.server.started:
            assert self._thread.is_alive()

    def _run(self, listening: Any) -> None:
        self._loop.run_until_complete(self.server.serve([listening]))
        self._loop.close()

    def drain(self) -> None:
        """As SIGTERM does."""
        self._loop.call_soon_threadsafe(self.server.drain)

    def join(self) -> None:
        """Wait until it has stopped."""
        self._thread.join()

    @property
    def leftovers(self) -> set[Any]:
        """Connections that it still holds."""
        return self.server.server_state.connections

    @property
    def tasks(self) -> int:
        """That are under way in its loop."""
        return len(asyncio.all_tasks(self._loop))

    def stop(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self.drain()
            self.join()

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        """A client that has been greeted."""
        async with connect(self.address, **options) as client:
            yield client
