"""The asyncio client.

Rules:
- Its connection belongs to the event loop of its first call; one client serves any number of tasks
  of that loop.
- Its methods are those of `kvblock.sync.Client`: same names, parameters, defaults and values.
- Cancelling a task cancels its call; whether that was carried out is unknown then.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import SupportsIndex

from kvblock import answers, requests
from kvblock.async_connection import AsyncConnection, Interceptor, Stubs
from kvblock.credentials import Tls
from kvblock.health import is_serving
from kvblock.results import (
    AuditReport,
    BlockTable,
    Capacity,
    Granted,
    PoolInfo,
    Refused,
    SequenceInfo,
    ServerStats,
    StepPolicy,
    StepResult,
)
from kvblock.session import AsyncSession
from kvblock.settings import Configured, Settings
from kvblock.v1 import admin_pb2
from kvblock.v1 import kvblock_pb2 as pb


class AsyncClient(Configured):
    """A connection to one server, and the pool and engine that its calls mean.

    `address` is `unix:PATH`, `unix:///PATH` or `HOST:PORT`. `pool` "" is the server's default pool.
    `timeout` is in seconds and holds for each call that has none of its own; None: no timeout.
    `token` tells a server that has an access file who is calling. `tls` True: TLS, with the
    authorities that gRPC brings with it; a `kvblock.Tls` names others, and a client's certificate.
    Making a client does not wait for the server: the first call tells whether it is there.
    """

    def __init__(
        self,
        address: str,
        *,
        pool: str = "",
        engine: str = "default",
        timeout: float | None = 5.0,
        token: str | None = None,
        tls: Tls | bool = False,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self._settings = Settings.of(address, pool, engine, timeout, token, tls)
        self._connection = AsyncConnection(self._settings, interceptors)
        self._sessions: weakref.WeakSet[AsyncSession] = weakref.WeakSet()
        self._call = self._connection.call

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; sessions that are open are broken off, running calls end."""
        for session in list(self._sessions):
            await session.close()
        await self._connection.close()

    async def allocate(
        self,
        sequence_id: SupportsIndex,
        num_blocks: SupportsIndex = 1,
        *,
        max_wait: float | None = None,
        pool: str | None = None,
        engine: str | None = None,
        timeout: float | None = None,
    ) -> Granted | Refused:
        """Append blocks to a sequence's block table: all that were asked for, or none.

        `max_wait` is how many seconds to wait for blocks that are not free now, before the refusal;
        the client's own timeout is longer by as much.
        """
        request = requests.allocate(self._settings, pool, engine, sequence_id, num_blocks, max_wait)
        deadline = self._settings.deadline(timeout, max_wait)
        return answers.allocated(await self._call(self._stubs.service.Allocate, request, deadline))

    async def free(
        self,
        sequence_id: SupportsIndex,
        *,
        pool: str | None = None,
        engine: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Return all blocks of a sequence to the pool; an unknown sequence changes nothing."""
        kind = pb.FreeRequest
        request = requests.of_sequence(kind, self._settings, pool, engine, sequence_id)
        await self._call(self._stubs.service.Free, request, self._settings.deadline(timeout))

    async def free_returning_count(
        self,
        sequence_id: SupportsIndex,
        *,
        pool: str | None = None,
        engine: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Free a sequence and answer how many blocks went back; 0 for an unknown one."""
        kind = pb.FreeReturningCountRequest
        request = requests.of_sequence(kind, self._settings, pool, engine, sequence_id)
        deadline = self._settings.deadline(timeout)
        answer = await self._call(self._stubs.service.FreeReturningCount, request, deadline)
        return answer.freed_blocks

    async def get_block_table(
        self,
        sequence_id: SupportsIndex,
        *,
        pool: str | None = None,
        engine: str | None = None,
        timeout: float | None = None,
    ) -> BlockTable:
        """The blocks of a sequence in table order.

        Raises:
            NotFoundError: the sequence is unknown or was freed (SEQUENCE_NOT_FOUND).

        """
        kind = pb.GetBlockTableRequest
        request = requests.of_sequence(kind, self._settings, pool, engine, sequence_id)
        deadline = self._settings.deadline(timeout)
        answer = await self._call(self._stubs.service.GetBlockTable, request, deadline)
        return answers.block_table(answer)

    async def can_allocate(
        self,
        num_blocks: SupportsIndex = 1,
        *,
        pool: str | None = None,
        engine: str | None = None,
        timeout: float | None = None,
    ) -> Capacity:
        """Whether an allocation of so many blocks would be granted at this moment.

        The answer is true in a condition when it would. Nothing is reserved.
        """
        request = requests.can_allocate(self._settings, pool, engine, num_blocks)
        deadline = self._settings.deadline(timeout)
        answer = await self._call(self._stubs.service.CanAllocate, request, deadline)
        return answers.capacity(answer)

    async def step(
        self,
        *,
        free: Iterable[SupportsIndex] = (),
        allocate: Iterable[SupportsIndex] = (),
        num_blocks: Iterable[SupportsIndex] = (),
        policy: StepPolicy = StepPolicy.ALL_OR_NOTHING,
        pool: str | None = None,
        engine: str | None = None,
        timeout: float | None = None,
    ) -> StepResult:
        """One engine iteration in one call: free sequences, then let others' tables grow.

        `free` and `allocate` are sequence ids, each at most once; `num_blocks` has as many numbers
        as `allocate`, or none: one block each. Any iterable of whole numbers will do, arrays too.
        A loop of steps is faster in a session.
        """
        request = requests.step(self._settings, pool, engine, free, allocate, num_blocks, policy)
        deadline = self._settings.deadline(timeout)
        size = request.ByteSize()
        answer = await self._call(self._stubs.service.Step, request, deadline, size)
        return answers.step_result(answer.result)

    def session(
        self, *, pool: str | None = None, engine: str | None = None, timeout: float | None = None
    ) -> AsyncSession:
        """A session for an engine's loop; entering it attaches, leaving it detaches.

        `timeout` (seconds) holds for each of its messages that has none of its own.
        """
        session = AsyncSession(self._connection.open_stream, self._settings, pool, engine, timeout)
        self._sessions.add(session)
        return session

    async def stats(
        self,
        *,
        pool: str | None = None,
        engine: str | None = None,
        timeout: float | None = None,
    ) -> ServerStats:
        """The state and the counters of one pool, or of all; of one engine in them, or of all.

        Without names all are meant, also when the client itself has a pool or an engine.
        """
        request = requests.stats(pool, engine)
        deadline = self._settings.deadline(timeout)
        return answers.server_stats(await self._call(self._stubs.service.Stats, request, deadline))

    async def list_pools(self, *, timeout: float | None = None) -> tuple[PoolInfo, ...]:
        """The pools of the server, in order of their names."""
        deadline = self._settings.deadline(timeout)
        request = admin_pb2.ListPoolsRequest()
        return answers.pools(await self._call(self._stubs.admin.ListPools, request, deadline))

    def list_sequences(
        self,
        *,
        pool: str | None = None,
        engine: str | None = None,
        page_size: SupportsIndex = 0,
        timeout: float | None = None,
    ) -> AsyncIterator[SequenceInfo]:
        """The sequences of a pool, in order of engine name and id, fetched page by page.

        Without an engine those of all are meant, also when the client itself has one. `page_size`
        is the rows fetched at once, 0: as the server likes. `timeout` holds for each page.
        """
        request = requests.list_sequences(self._settings, pool, engine, page_size)
        return self._pages(request, self._settings.deadline(timeout))

    async def audit(
        self, *, pool: str | None = None, timeout: float | None = None
    ) -> tuple[AuditReport, ...]:
        """Recount every block of one pool, or of all, and report what does not add up.

        Without a name all are meant, also when the client itself has a pool.
        """
        request = requests.audit(pool)
        deadline = self._settings.deadline(timeout)
        return answers.audit_reports(await self._call(self._stubs.admin.Audit, request, deadline))

    async def health(self, *, timeout: float | None = None) -> bool:
        """Whether the server says that it serves; False while it is shutting down.

        Raises:
            UnavailableError: no server answers.

        """
        answer = await self._call(self._stubs.health, b"", self._settings.deadline(timeout))
        return is_serving(answer)

    async def _pages(
        self, request: admin_pb2.ListSequencesRequest, timeout: float | None
    ) -> AsyncIterator[SequenceInfo]:
        while True:
            page = await self._call(self._stubs.admin.ListSequences, request, timeout)
            for row in answers.sequences(page):
                yield row
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @property
    def _stubs(self) -> Stubs:
        return self._connection.stubs
