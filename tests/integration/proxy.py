"""A proxy before a server that loses answers and breaks connections, for clients of both kinds.

Rules:
- It reads frame headers of HTTP/2 and nothing else: a HEADERS or DATA frame from the server belongs
  to an answer, so the server has carried out what it answers.
- A lost answer is a connection that is cut before the answer's frame: nothing of the frame, and
  nothing that follows, reaches the client.
- It lives in a thread with an event loop of its own; its settings may be changed at any time.
"""

import asyncio
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
HEADER_BYTES = 9
DATA, HEADERS = 0, 1
PATIENCE = 60.0


class Proxy:
    """Passes on what comes to `address`, a Unix socket or a TCP port, to a server on a Unix socket.

    `answers_lost` and `requests_lost` are chances, per frame of an answer and per read of a
    request; the next `loses_next` frames are lost anyway. `cuts` counts connections that were cut
    between a request and its answer.
    """

    def __init__(self, server: str, random: Random, *, tcp: bool = False) -> None:
        self.answers_lost = 0.0
        self.requests_lost = 0.0
        self.loses_next = 0
        self.cuts = 0
        self.random = random
        self.target = server.removeprefix("unix:")
        self.connections: set[Connection] = set()
        self.accepts = True
        self._directory = tempfile.TemporaryDirectory(prefix="kvblock-proxy-")
        self.address = f"unix:{Path(self._directory.name) / 'proxy.sock'}"
        self._tcp = tcp
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._listening = self._do(self._listen())
        if self._tcp:
            host, port = self._listening.sockets[0].getsockname()
            self.address = f"{host}:{port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
        self._directory.cleanup()

    def loses(self) -> bool:
        """Whether this frame of an answer gets lost."""
        if self.loses_next:
            self.loses_next -= 1
            return True
        return self.random.random() < self.answers_lost

    def cut(self) -> None:
        """Cut every connection that there is now."""
        self._do(self._cut())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _listen(self) -> asyncio.Server:
        if self._tcp:
            return await self._loop.create_server(lambda: Connection(self), "127.0.0.1", 0)
        path = self.address.removeprefix("unix:")
        return await self._loop.create_unix_server(lambda: Connection(self), path)

    async def _end(self) -> None:
        self._listening.close()
        await self._cut()

    async def _cut(self) -> None:
        for connection in list(self.connections):
            connection.cut()


class Connection(asyncio.Protocol):
    """The client's side of one connection."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client: asyncio.Transport | None = None
        self.server: asyncio.Transport | None = None
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.client = transport
        self.proxy.connections.add(self)
        if not self.proxy.accepts:
            self.cut()
            return
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_unix_connection(lambda: Answers(self), self.proxy.target)
        except OSError:
            self.cut()

    def connected(self, server: asyncio.Transport) -> None:
        """The server has accepted."""
        self.server = server
        server.write(bytes(self._early))
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self.proxy.random.random() < self.proxy.requests_lost:
            self.cut()
        elif self.server is None:
            self._early += data
        else:
            self.server.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.cut()

    def cut_server(self) -> None:
        """End the server's side."""
        self.proxy.connections.discard(self)
        if self.server is not None:
            self.server.abort()

    def cut(self) -> None:
        """End both sides at once."""
        self.proxy.connections.discard(self)
        for side in (self.client, self.server):
            if side is not None:
                side.abort()


class Answers(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._header = bytearray()
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._connection.connected(transport)

    def data_received(self, data: bytes) -> None:
        client = self._connection.client
        if client is None or client.is_closing():
            return
        passed = self._until_lost(data)
        client.write(data[:passed])
        if passed < len(data):
            self._connection.proxy.cuts += 1
            # Closed and not aborted: what came before the lost frame does reach the client.
            client.close()
            self._connection.cut_server()

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.server = None
        if self._connection.client is not None:
            self._connection.client.close()

    def _until_lost(self, data: bytes) -> int:
        """How many bytes to pass on: all, or those before the frame that gets lost."""
        proxy, at = self._connection.proxy, 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            missing = HEADER_BYTES - len(self._header)
            self._header += data[at : at + missing]
            at += min(missing, len(data) - at)
            if len(self._header) < HEADER_BYTES:
                break
            self._left = int.from_bytes(self._header[:3], "big")
            kind = self._header[3]
            self._header.clear()
            if kind in (DATA, HEADERS) and proxy.loses():
                return max(0, at - HEADER_BYTES)
        return len(data)
