# Generated from kvblock/_async/operator.py by scripts/gen_sync.py: change that one.
"""What an operator asks of a server, for the synchronous client.

Rules:
- These are the calls of the service `KVBlockAdmin`. They are made under no lease, and carry no
  epoch of the client's.
- A list is fetched while it is read: a page when its first row is asked for, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import SupportsIndex, TypeVar

import grpc

from kvblock import answers, requests
from kvblock._sync.transport import Transport
from kvblock.operator_results import (
    AuditReport,
    BlockInfo,
    BlockState,
    EngineInfo,
    EngineTables,
    PoolInfo,
    SequenceInfo,
)
from kvblock.requests import PageRequestT, PageT
from kvblock.settings import ClientSettings
from kvblock.v1 import admin_pb2, admin_pb2_grpc

RowT = TypeVar("RowT")


class OperatorCalls:
    """The calls for operators that a client has beside those for engines."""

    _settings: ClientSettings
    _connection: Transport

    def list_pools(self, *, timeout: float | None = None) -> tuple[PoolInfo, ...]:
        """The pools of the server, in order of their names."""
        deadline = self._settings.deadline(timeout)
        request = admin_pb2.ListPoolsRequest()
        answer = self._connection.call(self._admin.ListPools, request, deadline)
        return tuple(answers.mirror(PoolInfo, pool) for pool in answer.pools)

    def create_pool(
        self,
        pool: str,
        total_blocks: SupportsIndex,
        *,
        block_size: SupportsIndex = 16,
        device_id: SupportsIndex = 0,
        quarantine: float | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> PoolInfo:
        """Make a pool on the server.

        `quarantine` is how many seconds the blocks of a vanished engine wait before they are free;
        None: as long as the TTL of its lease. To repeat a call of which the outcome is unknown,
        give both the same `request_id`.

        Raises:
            AlreadyExistsError: the name is taken (POOL_EXISTS).
            FailedPreconditionError: the server has `pools_max` pools (STATE_LIMIT).

        """
        request = requests.create_pool(
            pool, total_blocks, block_size, device_id, quarantine, request_id
        )
        deadline = self._settings.deadline(timeout)
        answer = self._connection.call(self._admin.CreatePool, request, deadline)
        return answers.mirror(PoolInfo, answer.pool)

    def delete_pool(
        self, pool: str, *, request_id: str | None = None, timeout: float | None = None
    ) -> None:
        """Delete a pool that is not in use.

        Raises:
            FailedPreconditionError: an engine has blocks or a lease in it (POOL_HELD).
            NotFoundError: no pool has that name (POOL_NOT_FOUND).

        """
        request = requests.delete_pool(pool, request_id)
        deadline = self._settings.deadline(timeout)
        self._connection.call(self._admin.DeletePool, request, deadline)

    def list_engines(
        self, *, pool: str | None = None, page_size: SupportsIndex = 0, timeout: float | None = None
    ) -> Iterator[EngineInfo]:
        """The engines that have a sequence or a lease, in order of pool and name, page by page.

        Without a name those of all pools are meant, also when the client itself has one.
        `page_size` and `timeout` are as in `list_sequences`.
        """
        request = requests.view(admin_pb2.ListEnginesRequest, pool=pool, page_size=page_size)
        deadline = self._settings.deadline(timeout)
        return self._pages(lambda admin: admin.ListEngines, request, answers.engines, deadline)

    def reclaim_engine(
        self,
        engine: str,
        *,
        epoch: SupportsIndex = 0,
        force: bool = False,
        pool: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """End an engine from outside; answers how many blocks were taken from it.

        Its lease ends, its blocks go into quarantine, and its session ends with STALE_EPOCH.
        `epoch`: only if this is the epoch of its lease; 0: whatever it is. `force`: also when its
        lease has not run out.

        Raises:
            NotFoundError: it has neither a sequence nor a lease (ENGINE_NOT_FOUND).
            FailedPreconditionError: it has another epoch (STALE_EPOCH), or its lease has not run
                out and this is no `force` (ENGINE_ATTACHED).

        """
        request = requests.reclaim_engine(
            self._settings, pool, engine, epoch, request_id, force=force
        )
        deadline = self._settings.deadline(timeout)
        answer = self._connection.call(self._admin.ReclaimEngine, request, deadline)
        return answer.reclaimed_blocks

    def list_blocks(
        self,
        *,
        pool: str | None = None,
        engine: str | None = None,
        block_numbers: Iterable[SupportsIndex] = (),
        states: Iterable[BlockState] = (),
        page_size: SupportsIndex = 0,
        timeout: float | None = None,
    ) -> Iterator[BlockInfo]:
        """The blocks of a pool and who has them, in order of their numbers, page by page.

        `engine` narrows it to what that engine holds or lost into quarantine; without one all are
        meant, also when the client itself has one. Blocks that were never used are left out unless
        `block_numbers` names them. `page_size` and `timeout` are as in `list_sequences`.
        """
        request = requests.list_blocks(
            self._settings, pool, engine, block_numbers, states, page_size
        )
        deadline = self._settings.deadline(timeout)
        return self._pages(lambda admin: admin.ListBlocks, request, answers.blocks, deadline)

    def list_sequences(
        self,
        *,
        pool: str | None = None,
        engine: str | None = None,
        with_block_numbers: bool = False,
        page_size: SupportsIndex = 0,
        timeout: float | None = None,
    ) -> Iterator[SequenceInfo]:
        """The sequences of a pool, in order of engine name and id, fetched page by page.

        Without an engine those of all are meant, also when the client itself has one. `page_size`
        is the rows fetched at once, 0: as the server likes. `timeout` holds for each page.
        """
        request = requests.list_sequences(self._settings, pool, engine, page_size)
        request.with_block_numbers = with_block_numbers
        deadline = self._settings.deadline(timeout)
        return self._pages(lambda admin: admin.ListSequences, request, answers.sequences, deadline)

    def block_tables(
        self,
        *,
        pool: str | None = None,
        engine: str | None = None,
        page_size: SupportsIndex = 0,
        timeout: float | None = None,
    ) -> EngineTables:
        """All block tables of an engine, as the server has them.

        The answer tells whether they are of one moment; those that fit on one page are.
        `page_size` and `timeout` are as in `list_sequences`.
        """
        request = requests.block_tables(self._settings, pool, engine, page_size)
        deadline = self._settings.deadline(timeout)
        tables: dict[int, list[int]] = {}
        revisions = set()
        while True:
            page = self._connection.call(self._admin.ListSequences, request, deadline)
            tables |= {row.sequence_id: row.block_numbers[:] for row in page.sequences}
            revisions.add(page.revision)
            if not page.next_page_token:
                return EngineTables(tables, page.revision, len(revisions) == 1)
            request.page_token = page.next_page_token

    def audit(
        self, *, pool: str | None = None, timeout: float | None = None
    ) -> tuple[AuditReport, ...]:
        """Recount every block of one pool, or of all, and report what does not add up.

        Without a name all are meant, also when the client itself has a pool.
        """
        request = requests.view(admin_pb2.AuditRequest, pool=pool)
        deadline = self._settings.deadline(timeout)
        answer = self._connection.call(self._admin.Audit, request, deadline)
        return tuple(
            answers.mirror(AuditReport, report, violations=tuple(report.violations))
            for report in answer.reports
        )

    def drain(self, *, timeout: float | None = None) -> None:
        """Let the server begin its drain, as SIGTERM does: it takes no new work, and ends."""
        deadline = self._settings.deadline(timeout)
        self._connection.call(self._admin.Drain, admin_pb2.DrainRequest(), deadline)

    def _pages(
        self,
        method_of: Callable[
            [admin_pb2_grpc.KVBlockAdminStub], grpc.UnaryUnaryMultiCallable[PageRequestT, PageT]
        ],
        request: PageRequestT,
        rows_of: Callable[[PageT], Iterable[RowT]],
        timeout: float | None,
    ) -> Iterator[RowT]:
        while True:
            page = self._connection.call(method_of(self._admin), request, timeout)
            yield from rows_of(page)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @property
    def _admin(self) -> admin_pb2_grpc.KVBlockAdminStub:
        return self._connection.stubs.admin
