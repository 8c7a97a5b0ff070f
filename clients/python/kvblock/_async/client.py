"""The asyncio client.

Rules:
- Where it can be used, and what becomes of it when it is forgotten, is said in `connection`.
- What operators ask for is in `operator`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import SupportsIndex

from kvblock import answers, fencing, requests
from kvblock._async.connection import Connection, Interceptor
from kvblock._async.engine_lease import AsyncEngineLease, attach_engine
from kvblock._async.operator import OperatorCalls
from kvblock._async.session import AsyncSession
from kvblock._async.transport import Stubs
from kvblock.credentials import Tls
from kvblock.errors import ClosedError
from kvblock.expect import Expect
from kvblock.hints import EngineHints
from kvblock.lease import AttachOptions, OnLeaseLost
from kvblock.lease_user import LeaseUsers
from kvblock.recall import OnRecall
from kvblock.results import (
    BlockTable,
    Capacity,
    Granted,
    Refused,
    ServerStats,
    StepPolicy,
    StepResult,
)
from kvblock.settings import CLOSED, ClientSettings, Configured
from kvblock.v1 import kvblock_pb2 as pb


class AsyncClient(OperatorCalls, Configured):
    """A connection to one server, and the pool and engine that its calls mean.

    `address` is `unix:PATH`, `unix:///PATH` or `HOST:PORT`. `pool` "" is the server's default pool.
    `timeout` is in seconds and holds for each call that has none of its own; None: no timeout.
    `epoch` is that of a lease which another client renews, for this one's pool and engine.
    Making a client does not wait for the server: the first call tells whether it is there.

    A call that finds the server unavailable is made again until its timeout, unless `retries` is
    false; with no timeout until the client is closed. A call that changes something takes effect
    once all the same: it carries a `request_id`, a new one unless the caller gives one to repeat a
    call whose outcome is unknown.
    """

    def __init__(
        self,
        address: str,
        *,
        pool: str = "",
        engine: str = "default",
        timeout: float | None = 5.0,
        epoch: SupportsIndex = 0,
        retries: bool = True,
        token: str | None = None,
        tls: Tls | bool = False,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self._settings = ClientSettings.of(
            address, pool, engine, timeout, epoch, retries=retries, token=token, tls=tls
        )
        self._connection = Connection(self._settings, interceptors)
        self._users: LeaseUsers[AsyncSession | AsyncEngineLease] = LeaseUsers()
        self._call = self._connection.call
        self._change = self._connection.change

    async def __aenter__(self) -> AsyncClient:
        self._settings.owner.check()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; sessions end, leases expire, running calls fail."""
        if self._settings.owner.is_here:
            for user in self._users.close():
                await user.close()
            await self._connection.close()

    async def allocate(
        self,
        sequence_id: SupportsIndex,
        num_blocks: SupportsIndex = 1,
        *,
        max_wait: float | None = None,
        pool: str | None = None,
        engine: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Granted | Refused:
        """Append blocks to a sequence's block table: all that were asked for, or none.

        `max_wait` is how many seconds to wait for blocks that are not free now, before the refusal;
        the client's own timeout is longer by as much.
        """
        request = requests.allocate(self._settings, pool, engine, sequence_id, num_blocks, max_wait)
        deadline = self._settings.deadline(timeout, max_wait)
        answer = await self._change(self._stubs.service.Allocate, request, deadline, request_id)
        return answers.allocated(answer)

    async def free(
        self,
        sequence_id: SupportsIndex,
        *,
        pool: str | None = None,
        engine: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Return all blocks of a sequence to the pool; an unknown sequence changes nothing."""
        request = requests.of_sequence(pb.FreeRequest, self._settings, pool, engine, sequence_id)
        deadline = self._settings.deadline(timeout)
        await self._change(self._stubs.service.Free, request, deadline, request_id)

    async def free_returning_count(
        self,
        sequence_id: SupportsIndex,
        *,
        pool: str | None = None,
        engine: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Free a sequence and answer how many blocks went back; 0 for an unknown one."""
        kind = pb.FreeReturningCountRequest
        request = requests.of_sequence(kind, self._settings, pool, engine, sequence_id)
        deadline = self._settings.deadline(timeout)
        method = self._stubs.service.FreeReturningCount
        answer = await self._change(method, request, deadline, request_id)
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
        self._settings.owner.check()
        fencing.fence(self._settings.leases, request)
        answer = await self._call(self._stubs.service.GetBlockTable, request, deadline)
        return BlockTable(
            answer.block_numbers[:], answer.block_size, answer.device_id, answer.first_index
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

        Raises:
            InvalidArgumentError: no allocation may ask for so many (REQUEST_LIMIT).

        """
        request = requests.can_allocate(self._settings, pool, engine, num_blocks)
        deadline = self._settings.deadline(timeout)
        answer = await self._call(self._stubs.service.CanAllocate, request, deadline)
        return Capacity(answer.can_allocate, answer.free_blocks)

    async def step(
        self,
        *,
        free: Iterable[SupportsIndex] = (),
        allocate: Iterable[SupportsIndex] = (),
        num_blocks: Iterable[SupportsIndex] = (),
        policy: StepPolicy = StepPolicy.ALL_OR_NOTHING,
        release: Iterable[SupportsIndex] = (),
        acquire: SupportsIndex = 0,
        trim: Iterable[SupportsIndex] = (),
        trim_head: Iterable[SupportsIndex] = (),
        trim_tail: Iterable[SupportsIndex] = (),
        hints: EngineHints | None = None,
        pool: str | None = None,
        engine: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> StepResult:
        """One engine iteration in one call: what it gives back, then what it takes.

        `free` and `allocate` are sequence ids, each at most once; `num_blocks` has as many numbers
        as `allocate`, or none: one block each. Any iterable of whole numbers will do, arrays too.

        `release` are acquired blocks to give back, by number, in any order, each once; `acquire` is
        how many blocks to hold outside any table. `trim` are sequences whose tables shrink, by as
        many blocks at the head as `trim_head` says for each, and at the tail as `trim_tail` says; a
        table of which nothing is left ends its sequence. A step frees, releases, trims, allocates,
        and acquires, in this order.

        `hints`: what the engine lacks and could give back; None: as it said last. A loop of steps
        is faster in a session.
        """
        by_number = (release, acquire, trim, trim_head, trim_tail)
        columns = (free, allocate, num_blocks)
        request = requests.step(self._settings, pool, engine, *columns, policy, by_number, hints)
        deadline = self._settings.deadline(timeout)
        size = request.ByteSize()
        answer = await self._change(self._stubs.service.Step, request, deadline, request_id, size)
        return answers.step_result(answer.result, answer.owed_blocks)

    def session(
        self,
        *,
        pool: str | None = None,
        engine: str | None = None,
        ttl: float | None = None,
        takeover: bool = False,
        epoch: SupportsIndex = 0,
        on_lease_lost: OnLeaseLost | None = None,
        expect: Expect | None = None,
        recall: bool = False,
        on_recall: OnRecall | None = None,
        timeout: float | None = None,
    ) -> AsyncSession:
        """A session for an engine's loop; entering it attaches, leaving it detaches.

        `ttl` is how many seconds its lease should last without renewal; None: as the server likes.
        A restart of the server that takes longer loses the lease. `takeover` ends the lease that
        another client has under the engine's name. `epoch` is that of a lease to go on with.
        `on_lease_lost` is called once with a LeaseLostError when the lease is lost. `expect` is
        what the engine was built for: with a pool that differs the attach fails with
        GEOMETRY_MISMATCH. `timeout` (seconds) holds for each of its messages that has none of its
        own. Unary calls of this client for the same pool and engine are made under the lease, too.

        `recall` has the server say on the stream at once when `owed_blocks` of the session changes;
        else it changes with answers and with renewals in the background. `on_recall` is called with
        it when it has changed and no call of the session has answered it.
        """
        self._settings.owner.check()
        options = AttachOptions.of(epoch, ttl, takeover, on_lease_lost, expect, on_recall, recall)
        session = AsyncSession(self._connection, options, pool, engine, timeout)
        self._users.add(session)
        return session

    async def attach_engine(
        self,
        *,
        pool: str | None = None,
        engine: str | None = None,
        ttl: float | None = None,
        takeover: bool = False,
        epoch: SupportsIndex = 0,
        on_lease_lost: OnLeaseLost | None = None,
        expect: Expect | None = None,
        on_recall: OnRecall | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> AsyncEngineLease:
        """A lease for an engine without a stream, renewed in the background; leaving it detaches.

        Calls of this client that name the pool and the engine in the same way are made under it.
        The parameters are those of `session`.

        Raises:
            FailedPreconditionError: another client has a lease under the engine's name (reason
                ENGINE_ATTACHED; `retry_after` says when it runs out unless it is renewed), or the
                pool is not what is expected (GEOMETRY_MISMATCH).
            LeaseLostError: the lease that was to be resumed has ended.

        """
        options = AttachOptions.of(epoch, ttl, takeover, on_lease_lost, expect, on_recall)
        kind, request_id = pb.AttachEngineRequest, fencing.identify(request_id)
        request = requests.attach(kind, self._settings, pool, engine, options, request_id)
        deadline = self._settings.deadline(timeout)
        lease = await attach_engine(self._connection, request, deadline, options)
        if not self._users.add(lease):
            await lease.close()
            raise ClosedError(CLOSED)
        return lease

    async def stats(
        self, *, pool: str | None = None, engine: str | None = None, timeout: float | None = None
    ) -> ServerStats:
        """The state and the counters of one pool, or of all; of one engine in them, or of all.

        Without names all are meant, also when the client itself has a pool or an engine.
        """
        request = requests.view(pb.StatsRequest, pool=pool, engine=engine)
        deadline = self._settings.deadline(timeout)
        return answers.server_stats(await self._call(self._stubs.service.Stats, request, deadline))

    async def health(self, *, timeout: float | None = None) -> bool:
        """Whether the server says that it serves; False while it is shutting down.

        Raises:
            UnavailableError: no server answers.

        """
        deadline = self._settings.deadline(timeout)
        return answers.serving(await self._connection.once(self._stubs.health, b"", deadline))

    @property
    def _stubs(self) -> Stubs:
        return self._connection.stubs
