# Generated from kvblock/_async/transport.py by scripts/gen_sync.py: change that one.
"""What the synchronous client needs of its connection and streams, and calls that are repeated.

Rules:
- The other modules use of `connection` and `stream` what is declared here, and nothing else: where
  asyncio and threads differ, they differ behind it.
- Every failure of a call comes out as a KVBlockError, after the retries that `kvblock.retry`
  permits.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple, Protocol, TypeVar

import grpc

from kvblock import fencing
from kvblock._sync.event import StopEvent
from kvblock.errors import ClosedError, KVBlockError
from kvblock.fencing import Change
from kvblock.lease import Lease
from kvblock.recall import Recall
from kvblock.retry import Retries, may_repeat
from kvblock.settings import CLOSED, ClientSettings
from kvblock.step_context import Traceparent
from kvblock.v1 import admin_pb2_grpc, kvblock_pb2_grpc
from kvblock.v1 import kvblock_pb2 as pb

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
ToldT = TypeVar("ToldT")
ChangeT = TypeVar("ChangeT", bound=Change)


class StreamEnded(Exception):
    """The call has ended, and the server has not said why."""


class Stream(Protocol):
    """One running Session call: one message out, one message in.

    `timed_out` tells, after a failed exchange, that it took too long.
    """

    timed_out: bool

    def exchange(self, request: pb.SessionRequest, timeout: float | None) -> pb.SessionResponse:
        """Send a message and answer the next one that comes.

        Raises:
            grpc.RpcError: the call has ended with an error.
            StreamEnded: a timeout, a `close` or a broken connection has ended the call.

        """

    def finish(self, timeout: float | None) -> None:
        """Read a call to its end that has nothing more to say; `close` it after that."""

    def close(self) -> None:
        """Cancel the call if it is still running."""


class Stubs(NamedTuple):
    """The stubs of a channel."""

    service: kvblock_pb2_grpc.KVBlockServiceStub
    admin: admin_pb2_grpc.KVBlockAdminStub
    health: grpc.UnaryUnaryMultiCallable[bytes, bytes]

    @classmethod
    def of(cls, channel: grpc.Channel) -> Stubs:
        """Those of this channel. A health check asks for no service in particular: no bytes."""
        return cls(
            kvblock_pb2_grpc.KVBlockServiceStub(channel),
            admin_pb2_grpc.KVBlockAdminStub(channel),
            channel.unary_unary("/grpc.health.v1.Health/Check"),
        )


class Transport(Protocol):
    """One connection to one server; `traceparent`: see `kvblock.step_context`."""

    settings: ClientSettings
    traceparent: Traceparent | None
    closed: StopEvent

    @property
    def stubs(self) -> Stubs:
        """The stubs, for a call that is made now.

        Raises:
            ClosedError: the connection is closed.
            UsageError: as `check_caller`.

        """

    def check_caller(self) -> None:
        """Raises UsageError unless the connection can be used by whoever runs here."""

    def callback(self, call: Callable[[ToldT], None]) -> Callable[[ToldT], None]:
        """What any thread may call to have `call` called where the client's user expects it."""

    def once(
        self,
        method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        size: int = 0,
    ) -> ResponseT:
        """Send a call a single time; `size` is the request's where it may be large."""

    def pause(self, stop: StopEvent, seconds: float) -> None:
        """Wait before the next try, until `stop` is set at the latest."""

    def open_stream(self, recall: Recall | None) -> Stream:
        """Start a Session call; `recall` gets what comes unasked, None: nothing does."""

    def close(self) -> None:
        """End what is running and close the channel."""

    def change(
        self,
        method: grpc.UnaryUnaryMultiCallable[ChangeT, ResponseT],
        request: ChangeT,
        timeout: float | None,
        request_id: str | None,
        size: int = 0,
    ) -> ResponseT:
        """Carry out a call that changes something: once, however often it has to be sent."""
        self.settings.owner.check()
        lease = fencing.fence(self.settings.leases, request)
        request.request_id = fencing.identify(request_id)
        sent = monotonic()
        try:
            answer = self.call(method, request, timeout, size, lease)
        except KVBlockError as error:
            fencing.failed(lease, error)
            raise
        fencing.answered(lease, sent)
        return answer

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        size: int = 0,
        lease: Lease | None = None,
    ) -> ResponseT:
        """Carry out a call that is safe to repeat.

        The retries end when the lease does under which the call is made.
        """
        started = monotonic()
        try:
            return self.once(method, request, timeout, size)
        except KVBlockError as error:
            if not may_repeat(error):
                raise
            failure = error
        retries = Retries(started, timeout, enabled=self.settings.retries)
        while True:
            self.pause(self.closed, retries.delay(failure))
            if self.closed.is_set():
                raise ClosedError(CLOSED)
            if lease is not None:
                lease.check()
            try:
                return self.once(method, request, retries.remaining(), size)
            except KVBlockError as error:
                failure = error
