"""A proxy before the server that cuts, delays and holds connections.

Rules:
- It is told what to do and draws nothing itself, but for the chances that it is given with their
  generator.
- Bytes keep their order in each direction; a cut loses what was not passed on yet.
- A connection that is held passes nothing to the server until its time is over; what its client
  sent before it went away is delivered then, late.
- It lives in a thread with an event loop of its own.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from random import Random
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = 60.0


class Proxy:
    """Passes on what comes to a Unix socket and to a TCP port, to the server's Unix socket.

    `delay` is the longest time that a piece is held up; `loses_answers` is the chance, per piece
    from the server, that its connection is cut instead. `cuts` and `late` count connections that
    were cut, and those whose client was gone when the server got their last bytes.
    """

    def __init__(self, server: str, path: str, random: Random) -> None:
        self.target = server.removeprefix("unix:")
        self.path = path.removeprefix("unix:")
        self.random = random
        self.delay = 0.0
        self.loses_answers = 0.0
        self.cuts = 0
        self.late = 0
        self.connections: list[Pair] = []
        self.tcp_address = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._do(self._listen())
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

    def cut(self, count: int) -> None:
        """Cut some connections at once."""
        self._do(self._cut(count))

    def hold(self, seconds: float, *, cut_client: bool) -> None:
        """Let nothing of one connection reach the server for a while; its client may be cut off."""
        self._do(self._hold(seconds, cut_client))

    def calm(self) -> None:
        """Pass everything on from now."""
        self.delay = self.loses_answers = 0.0

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _listen(self) -> None:
        unix = await self._loop.create_unix_server(lambda: Pair(self).client, self.path)
        tcp = await self._loop.create_server(lambda: Pair(self).client, "127.0.0.1", 0)
        self._servers = (unix, tcp)
        self.tcp_address = "127.0.0.1:{1}".format(*tcp.sockets[0].getsockname())

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for pair in list(self.connections):
            pair.cut()

    async def _cut(self, count: int) -> None:
        for pair in self.random.sample(self.connections, min(count, len(self.connections))):
            self.cuts += 1
            pair.cut()

    async def _hold(self, seconds: float, cut_client: bool) -> None:
        if self.connections:
            pair = self.random.choice(self.connections)
            pair.server.not_before = self._loop.time() + seconds
            if cut_client:
                self.cuts += 1
                # A moment later, so that there is something to be late.
                self._loop.call_later(0.05, pair.cut_client)


class Side(asyncio.Protocol):
    """One side of a connection: what it reads goes to the other one, after a while."""

    def __init__(self, pair: "Pair") -> None:
        self.pair = pair
        self.transport: asyncio.Transport | None = None
        self.not_before = 0.0
        self.early: list[bytes] = []
        self.under_way = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.pair.opened(self)

    def data_received(self, data: bytes) -> None:
        self.pair.pass_on(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.pair.lost(self)

    def send(self, data: bytes, delay: float) -> None:
        """Write to this side once its time has come, behind everything that waits already."""
        loop = asyncio.get_running_loop()
        due = max(loop.time() + delay, self.not_before)
        if not self.under_way and due <= loop.time() and self.transport is not None:
            self.transport.write(data)
            return
        self.not_before = due
        self.early.append(data)
        self.under_way += 1
        loop.call_at(due, self._send_next)

    def _send_next(self) -> None:
        self.under_way -= 1
        if self.early and self.transport is not None:
            self.transport.write(self.early.pop(0))
        self.pair.settled(self)

    def when_settled(self, then: Callable[[], None]) -> None:
        """Do something once nothing waits to be sent to this side."""
        wait = max(0.0, self.not_before - asyncio.get_running_loop().time())
        asyncio.get_running_loop().call_later(wait + 0.05, then)


class Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client = Side(self)
        self.server = Side(self)

    def opened(self, side: Side) -> None:
        """A side is connected."""
        if side is self.client:
            self.proxy.connections.append(self)
            self._connecting = asyncio.ensure_future(self._connect())
        else:
            self.settled(side)

    def pass_on(self, source: Side, data: bytes) -> None:
        """Something was read."""
        proxy = self.proxy
        if source is self.server and proxy.random.random() < proxy.loses_answers:
            proxy.cuts += 1
            self.cut()
            return
        delay = proxy.random.uniform(0.0, proxy.delay) if proxy.delay else 0.0
        (self.server if source is self.client else self.client).send(data, delay)

    def settled(self, side: Side) -> None:
        """Nothing waits for a time any more; what was too early for the transport goes now."""
        if not side.under_way and side.transport is not None:
            for data in side.early:
                side.transport.write(data)
            side.early.clear()

    def lost(self, side: Side) -> None:
        """A side has gone."""
        if side is self.client and self.server.early:
            self.proxy.late += 1
            self._leave()
            self.server.when_settled(self.cut)
        else:
            self.cut()

    def cut_client(self) -> None:
        """Only the client notices."""
        if self.client.transport is not None:
            self.client.transport.abort()

    def cut(self) -> None:
        """End both sides at once."""
        self._leave()
        for side in (self.client, self.server):
            side.early.clear()
            if side.transport is not None:
                side.transport.abort()

    def _leave(self) -> None:
        if self in self.proxy.connections:
            self.proxy.connections.remove(self)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_unix_connection(lambda: self.server, self.proxy.target)
        except OSError:
            self.cut()
