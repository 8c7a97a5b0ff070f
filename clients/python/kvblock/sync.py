"""The synchronous client.

Rules:
- It stands on gRPC's synchronous stubs; no event loop is involved. Threads may share a client.
- Its methods are those of `kvblock.client.AsyncClient`: same names, parameters, defaults and
  values.
- A client that is forgotten is closed when it is collected; it never keeps the interpreter from
  exiting.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import SupportsIndex

from kvblock import answers, requests
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
from kvblock.settings import Configured, Settings
from kvblock.sync_connection import Interceptor, SyncConnection
from kvblock.sync_session import Session
from kvblock.v1 import admin_pb2
from kvblock.v1 import kvblock_pb2 as pb


class Client(Configured):
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
        self._connection = SyncConnection(self._settings, interceptors)
        forgotten = weakref.finalize(self, self._connection.close)
        forgotten.atexit = False
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._call = self._connection.call
        self._service, self._admin = self._connection.service, self._connection.admin

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; sessions that are open are broken off, running calls end."""
        for session in list(self._sessions):
            session.close()
        self._connection.close()

    def allocate(
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
        return answers.allocated(self._call(self._service.Allocate, request, deadline))

    def free(
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
        self._call(self._service.Free, request, self._settings.deadline(timeout))

    def free_returning_count(
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
        return self._call(self._service.FreeReturningCount, request, deadline).freed_blocks

    def get_block_table(
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
        return answers.block_table(self._call(self._service.GetBlockTable, request, deadline))

    def can_allocate(
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
        return answers.capacity(self._call(self._service.CanAllocate, request, deadline))

    def step(
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
        answer = self._call(self._service.Step, request, deadline, size)
        return answers.step_result(answer.result)

    def session(
        self, *, pool: str | None = None, engine: str | None = None, timeout: float | None = None
    ) -> Session:
        """A session for an engine's loop; entering it attaches, leaving it detaches.

        `timeout` (seconds) holds for each of its messages that has none of its own.
        """
        session = Session(self._connection.open_stream, self._settings, pool, engine, timeout)
        self._sessions.add(session)
        return session

    def stats(
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
        return answers.server_stats(self._call(self._service.Stats, request, deadline))

    def list_pools(self, *, timeout: float | None = None) -> tuple[PoolInfo, ...]:
        """The pools of the server, in order of their names."""
        deadline = self._settings.deadline(timeout)
        request = admin_pb2.ListPoolsRequest()
        return answers.pools(self._call(self._admin.ListPools, request, deadline))

    def list_sequences(
        self,
        *,
        pool: str | None = None,
        engine: str | None = None,
        page_size: SupportsIndex = 0,
        timeout: float | None = None,
    ) -> Iterator[SequenceInfo]:
        """The sequences of a pool, in order of engine name and id, fetched page by page.

        Without an engine those of all are meant, also when the client itself has one. `page_size`
        is the rows fetched at once, 0: as the server likes. `timeout` holds for each page.
        """
        request = requests.list_sequences(self._settings, pool, engine, page_size)
        return self._pages(request, self._settings.deadline(timeout))

    def audit(
        self, *, pool: str | None = None, timeout: float | None = None
    ) -> tuple[AuditReport, ...]:
        """Recount every block of one pool, or of all, and report what does not add up.

        Without a name all are meant, also when the client itself has a pool.
        """
        request = requests.audit(pool)
        deadline = self._settings.deadline(timeout)
        return answers.audit_reports(self._call(self._admin.Audit, request, deadline))

    def health(self, *, timeout: float | None = None) -> bool:
        """Whether the server says that it serves; False while it is shutting down.

        Raises:
            UnavailableError: no server answers.

        """
        return is_serving(
            self._call(self._connection.health, b"", self._settings.deadline(timeout))
        )

    def _pages(
        self, request: admin_pb2.ListSequencesRequest, timeout: float | None
    ) -> Iterator[SequenceInfo]:
        while True:
            page = self._call(self._admin.ListSequences, request, timeout)
            yield from answers.sequences(page)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
