"""The asyncio client's connection: a channel with its stubs, and the way a call ends.

Rules:
- The channel is made in the event loop of the first call, and belongs to that loop.
- Every failure of a call comes out as a KVBlockError, after the tries that `kvblock.retry` permits;
  CancelledError means that the task was cancelled, not that the call was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple, TypeAlias, TypeVar

import grpc
from grpc import aio

from kvblock import fencing, uncollected
from kvblock.async_stream import AsyncStream
from kvblock.cancelling import cancellations, task_is_cancelled, within
from kvblock.ending import Ending
from kvblock.errors import ClosedError, KVBlockError, UnavailableError, UsageError
from kvblock.failures import error_of, too_late
from kvblock.fencing import Change
from kvblock.frozen import OVERTIME, Outlet, took_too_long
from kvblock.health import CHECK
from kvblock.lease import Lease
from kvblock.retry import Tries
from kvblock.runtime_checks import check_loop, running_loop
from kvblock.settings import CHANNEL_OPTIONS, CLOSED, Settings
from kvblock.step_context import traceparent_of
from kvblock.v1 import admin_pb2_grpc, kvblock_pb2_grpc

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
ChangeT = TypeVar("ChangeT", bound=Change)
Interceptor: TypeAlias = aio.ClientInterceptor


class Stubs(NamedTuple):
    """A channel, its stubs and the event loop that they belong to."""

    loop: asyncio.AbstractEventLoop
    channel: aio.Channel
    service: kvblock_pb2_grpc.KVBlockServiceAsyncStub
    admin: admin_pb2_grpc.KVBlockAdminAsyncStub
    health: aio.UnaryUnaryMultiCallable[bytes, bytes]


class AsyncConnection:
    """One connection to one server; `traceparent`: see `kvblock.step_context`."""

    def __init__(self, settings: Settings, interceptors: Sequence[Interceptor]) -> None:
        self.settings = settings
        self.traceparent = traceparent_of(interceptors)
        self._interceptors = tuple(interceptors)
        self._made: Stubs | None = None
        self._closed = Ending()
        self._outlet = Outlet()
        uncollected.register(self)

    @property
    def stubs(self) -> Stubs:
        """The stubs, for use in the running loop."""
        if self._closed.is_set():
            raise ClosedError(CLOSED)
        loop = self.check_caller()
        if self._made is None:
            self._made = self._make(loop)
        return self._made

    def check_caller(self) -> asyncio.AbstractEventLoop:
        """The running loop.

        Raises:
            UsageError: there is none, or it is not that of the first call; or this is another
                process than the client's.

        """
        self.settings.owner.check()
        loop = running_loop()
        if self._made is not None and self._made.loop is not loop:
            raise UsageError(
                "this client and its sessions belong to another event loop; make a client in each"
            )
        return loop

    async def change(
        self,
        method: aio.UnaryUnaryMultiCallable[ChangeT, ResponseT],
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
            answer = await self.call(method, request, timeout, size, lease)
        except KVBlockError as error:
            fencing.failed(lease, error)
            raise
        fencing.answered(lease, sent)
        return answer

    async def call(
        self,
        method: aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
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
            return await self.once(method, request, timeout, size)
        except UnavailableError as error:
            failure = error
        tries = Tries(started, timeout, again=self.settings.retries)
        while True:
            await self._closed.wait(tries.pause(failure))
            if self._closed.is_set():
                raise ClosedError(CLOSED)
            if lease is not None:
                lease.check()
            try:
                return await self.once(method, request, tries.remaining(), size)
            except UnavailableError as error:
                failure = error

    async def once(
        self,
        method: aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        size: int = 0,
    ) -> ResponseT:
        """Send a call a single time."""
        self.check_caller()
        before = cancellations()
        may_be_stuck = self._outlet.begin(size)
        late: bool | None = None
        error: KVBlockError
        try:
            call = method(request, timeout=timeout, metadata=self.settings.credentials.metadata)
            if timeout is None or not may_be_stuck:
                answer = await call
            else:
                answer = await within(timeout + OVERTIME, call)
        except grpc.RpcError as failed:
            error = error_of(failed, self.settings.address)
            late = took_too_long(error)
        except asyncio.TimeoutError:
            error = too_late(self.settings.address)
            late = True
        except asyncio.CancelledError:
            if task_is_cancelled(before, self._closed.is_set()):
                raise
            error = ClosedError(CLOSED)
        else:
            late = False
            return answer
        finally:
            self._outlet.end(size, late)
        raise ClosedError(CLOSED) if self._closed.is_set() else error

    def open_stream(self) -> AsyncStream:
        """Start a Session call."""
        call = self.stubs.service.Session(metadata=self.settings.credentials.metadata)
        return AsyncStream(call, self._outlet)

    async def close(self) -> None:
        """End what is running and close the channel."""
        self._closed.set()
        if self._made is not None:
            await self._made.channel.close()

    def _make(self, loop: asyncio.AbstractEventLoop) -> Stubs:
        check_loop()
        target, credentials = self.settings.target, self.settings.credentials
        options = (*CHANNEL_OPTIONS, *credentials.options)
        if credentials.channel is None:
            channel = aio.insecure_channel(target, options, interceptors=self._interceptors)
        else:
            channel = aio.secure_channel(
                target, credentials.channel, options, interceptors=self._interceptors
            )
        return Stubs(
            loop,
            channel,
            kvblock_pb2_grpc.KVBlockServiceStub(channel),
            admin_pb2_grpc.KVBlockAdminStub(channel),
            channel.unary_unary(CHECK),
        )
