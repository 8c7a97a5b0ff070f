"""The synchronous client's connection: a channel with its stubs, and the way a call ends.

Rules:
- Threads may share it.
- Every failure of a call comes out as a KVBlockError, after the tries that `kvblock.retry` permits.
- One that is forgotten closes its channel when it is collected, but not at interpreter exit, where
  closing it may wait for ever: see `kvblock.uncollected`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TypeAlias, TypeVar

import grpc

from kvblock import fencing, uncollected
from kvblock.errors import ClosedError, KVBlockError, UnavailableError
from kvblock.failures import error_of, too_late
from kvblock.fencing import Change
from kvblock.frozen import OVERTIME, Outlet, close_in_time, took_too_long
from kvblock.health import CHECK
from kvblock.lease import Lease
from kvblock.retry import Tries
from kvblock.runtime_checks import check_threads
from kvblock.settings import CLOSED, Settings, open_channel
from kvblock.step_context import traceparent_of
from kvblock.sync_stream import SyncStream
from kvblock.v1 import admin_pb2_grpc, kvblock_pb2_grpc

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
ChangeT = TypeVar("ChangeT", bound=Change)
Interceptor: TypeAlias = grpc.UnaryUnaryClientInterceptor | grpc.StreamStreamClientInterceptor


class SyncConnection:
    """One connection to one server; `traceparent`: see `kvblock.step_context`."""

    def __init__(self, settings: Settings, interceptors: Sequence[Interceptor]) -> None:
        check_threads()
        self.settings = settings
        self.traceparent = traceparent_of(interceptors)
        self._closed = threading.Event()
        self._outlet = Outlet()
        self._metadata = settings.credentials.metadata
        self._channel = open_channel(settings)
        channel = self._channel
        self._forgotten = settings.owner.finalize(self, lambda: close_in_time(channel.close))
        self._forgotten.atexit = False
        uncollected.register(self)
        if interceptors:
            channel = grpc.intercept_channel(channel, *interceptors)
        self.service = kvblock_pb2_grpc.KVBlockServiceStub(channel)
        self.admin = admin_pb2_grpc.KVBlockAdminStub(channel)
        self.health: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)

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
        """Carry out a call that is safe to repeat; `size` is the request's where it may be large.

        The tries end when the lease does under which the call is made.
        """
        started = monotonic()
        try:
            return self.once(method, request, timeout, size)
        except UnavailableError as error:
            failure = error
        tries = Tries(started, timeout, again=self.settings.retries)
        while True:
            if self.pause(self._closed, tries.pause(failure)):
                raise ClosedError(CLOSED)
            if lease is not None:
                lease.check()
            try:
                return self.once(method, request, tries.remaining(), size)
            except UnavailableError as error:
                failure = error

    def once(
        self,
        method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        size: int = 0,
    ) -> ResponseT:
        """Send a call a single time."""
        self.settings.owner.check()
        may_be_stuck = self._outlet.begin(size)
        late: bool | None = None
        error: KVBlockError
        try:
            with self._open():
                if timeout is None or not may_be_stuck:
                    answer = method(request, timeout=timeout, metadata=self._metadata)
                else:
                    future = method.future(request, timeout=timeout, metadata=self._metadata)
                    answer = future.result(timeout + OVERTIME)
        except grpc.RpcError as failed:
            error = error_of(failed, self.settings.address)
            late = took_too_long(error)
        except grpc.FutureTimeoutError:
            error = too_late(self.settings.address)
            late = True
        else:
            late = False
            return answer
        finally:
            self._outlet.end(size, late)
        raise ClosedError(CLOSED) if self._closed.is_set() else error

    def pause(self, over: threading.Event, seconds: float) -> bool:
        """Wait until the next try, or until `over` is set; answers whether it is.

        A connection is made only while somebody waits for something in gRPC: with its usual poller
        a channel whose calls fail at once may take five seconds to notice what became of one.
        """
        if self._closed.is_set():
            return over.wait(seconds)
        with self._open():
            self._channel.subscribe(_no_matter)
        try:
            return over.wait(seconds)
        finally:
            self._channel.unsubscribe(_no_matter)

    def open_stream(self) -> SyncStream:
        """Start a Session call."""
        with self._open():
            return SyncStream(
                lambda requests: self.service.Session(requests, metadata=self._metadata),
                self._outlet,
            )

    def close(self) -> None:
        """End what is running and close the channel."""
        self._closed.set()
        if self._forgotten.detach() is not None:
            close_in_time(self._channel.close)

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Raises ClosedError when the connection is closed, also if another thread does so now."""
        self.settings.owner.check()
        check_threads()
        if self._closed.is_set():
            raise ClosedError(CLOSED)
        try:
            yield
        except ValueError:
            # What gRPC raises for a channel that is closed.
            if self._closed.is_set():
                raise ClosedError(CLOSED) from None
            raise


def _no_matter(_: grpc.ChannelConnectivity) -> None:
    """The state of a channel is watched for the sake of the watching."""
