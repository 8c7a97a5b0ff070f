"""The asyncio client.

Rules:
- Its connection belongs to the event loop of its first call; one client serves any number of tasks
  of that loop.
- Its methods are those of `kvblock.sync.Client`: same names, parameters, defaults and values.
- Cancelling a task cancels its call; whether that was carried out is unknown then.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import NamedTuple, SupportsIndex, TypeAlias, TypeVar

import grpc
from grpc import aio

from kvblock import answers, requests
from kvblock.async_stream import Call, task_is_cancelled
from kvblock.errors import ClosedError, KVBlockError
from kvblock.failures import error_of, too_late
from kvblock.frozen import LARGE_BYTES, OVERTIME
from kvblock.health import CHECK, is_serving
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
from kvblock.settings import CHANNEL_OPTIONS, CLOSED, Configured, Settings
from kvblock.v1 import admin_pb2, admin_pb2_grpc, kvblock_pb2_grpc
from kvblock.v1 import kvblock_pb2 as pb

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
Interceptor: TypeAlias = aio.ClientInterceptor


class _Connection(NamedTuple):
    """A channel, its stubs and the event loop that they belong to."""

    loop: asyncio.AbstractEventLoop
    channel: aio.Channel
    service: kvblock_pb2_grpc.KVBlockServiceAsyncStub
    admin: admin_pb2_grpc.KVBlockAdminAsyncStub
    health: aio.UnaryUnaryMultiCallable[bytes, bytes]

    @classmethod
    def to(
        cls, target: str, interceptors: Sequence[Interceptor], loop: asyncio.AbstractEventLoop
    ) -> _Connection:
        """A connection for the running loop."""
        channel = aio.insecure_channel(target, CHANNEL_OPTIONS, interceptors=interceptors)
        return cls(
            loop,
            channel,
            kvblock_pb2_grpc.KVBlockServiceStub(channel),
            admin_pb2_grpc.KVBlockAdminStub(channel),
            channel.unary_unary(CHECK),
        )


class AsyncClient(Configured):
    """A connection to one server, and the pool and engine that its calls mean.

    `address` is `unix:PATH`, `unix:///PATH` or `HOST:PORT`. `pool` "" is the server's default pool.
    `timeout` is in seconds and holds for each call that has none of its own; None: no timeout.
    Making a client does not wait for the server: the first call tells whether it is there.
    """

    def __init__(
        self,
        address: str,
        *,
        pool: str = "",
        engine: str = "default",
        timeout: float | None = 5.0,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self._settings = Settings.of(address, pool, engine, timeout)
        self._interceptors = tuple(interceptors)
        self._closed = False
        self._connection: _Connection | None = None
        self._sessions: weakref.WeakSet[AsyncSession] = weakref.WeakSet()

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
        self._closed = True
        for session in list(self._sessions):
            await session.close()
        if self._connection is not None:
            await self._connection.channel.close()

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
        return (
            await self._call(self._stubs.service.FreeReturningCount, request, deadline)
        ).freed_blocks

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
        return answers.block_table(
            await self._call(self._stubs.service.GetBlockTable, request, deadline)
        )

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
        return answers.capacity(
            await self._call(self._stubs.service.CanAllocate, request, deadline)
        )

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
        session = AsyncSession(self._open_stream, self._settings, pool, engine, timeout)
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
        return is_serving(
            await self._call(self._stubs.health, b"", self._settings.deadline(timeout))
        )

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

    async def _call(
        self,
        method: aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        size: int = 0,
    ) -> ResponseT:
        error: KVBlockError
        try:
            call = method(request, timeout=timeout)
            if timeout is not None and size > LARGE_BYTES:
                return await asyncio.wait_for(call, timeout + OVERTIME)
            return await call
        except grpc.RpcError as failed:
            error = error_of(failed, self.address)
        except asyncio.TimeoutError:
            error = too_late(self.address)
        except asyncio.CancelledError:
            if task_is_cancelled(self._closed):
                raise
            error = ClosedError(CLOSED)
        raise ClosedError(CLOSED) if self._closed else error

    def _open_stream(self) -> Call:
        return self._stubs.service.Session()

    @property
    def _stubs(self) -> _Connection:
        """The connection, made in the event loop of the first call."""
        if self._closed:
            raise ClosedError(CLOSED)
        loop = asyncio.get_running_loop()
        connection = self._connection
        if connection is None:
            connection = self._connection = _Connection.to(
                self._settings.target, self._interceptors, loop
            )
        elif connection.loop is not loop:
            raise RuntimeError("this client belongs to another event loop; make one in each loop")
        return connection
