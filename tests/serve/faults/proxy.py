"""A network between clients and a server that a test can make worse: it delays, stalls, half-closes and breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

PIECE = 65_536  # bytes


class Proxy:
    """Carries TCP connections to a server.

    Attributes:
        address: "127.0.0.1:port" for clients.
        carried: bytes that have passed.
    """

    def __init__(self, target: str, delay: float = 0.0) -> None:
        self.address = ""
        self.carried = 0
        host, _, port = target.partition(":")
        self._target, self._delay = (host, int(port)), delay
        self._open = asyncio.Event()
        self._open.set()
        self._ends: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []  # to the client, to the server

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listen meanwhile."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self.drop()
            server.close()

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Nothing passes meanwhile."""
        self._open.clear()
        yield
        self._open.set()

    def half_close(self) -> None:
        """The server is told that its clients send no more; what it sends still passes."""
        for _, to_server in self._ends:
            to_server.write_eof()

    def drop(self) -> None:
        """All connections break off, on both sides."""
        for ends in self._ends:
            for end in ends:
                end.transport.abort()
        self._ends.clear()

    async def _connected(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*self._target)
        self._ends.append((to_client, to_server))
        with suppress(OSError):
            await asyncio.gather(self._carry(from_client, to_server), self._carry(from_server, to_client))
        for end in (to_client, to_server):
            end.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Pass pieces on, each with the delay; what follows is read meanwhile."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        writing = asyncio.create_task(self._write(pieces, sink))
        loop = asyncio.get_running_loop()
        try:
            while not writing.done():
                piece = await source.read(PIECE)
                pieces.put_nowait((loop.time() + self._delay, piece))
                if not piece:
                    break
            await writing
        finally:
            writing.cancel()

    async def _write(self, pieces: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self._open.wait()
            if not piece:
                if not sink.is_closing() and sink.can_write_eof():
                    sink.write_eof()
                return
            sink.write(piece)
            self.carried += len(piece)
            await sink.drain()
