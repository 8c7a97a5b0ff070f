"""The asyncio client's connection: a channel with its stubs, and the way a call ends.

Rules:
- The channel is made in the event loop of the first call, and belongs to that loop.
- Every failure of a call comes out as a KVBlockError; CancelledError means that the task was
  cancelled, not that the call was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import grpc
from grpc import aio

from kvblock.async_stream import Call, task_is_cancelled
from kvblock.errors import ClosedError, KVBlockError
from kvblock.failures import error_of, too_late
from kvblock.frozen import LARGE_BYTES, OVERTIME
from kvblock.health import CHECK
from kvblock.settings import CHANNEL_OPTIONS, CLOSED, Settings
from kvblock.v1 import admin_pb2_grpc, kvblock_pb2_grpc

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
Interceptor: TypeAlias = aio.ClientInterceptor


class Stubs(NamedTuple):
    """A channel, its stubs and the event loop that they belong to."""

    loop: asyncio.AbstractEventLoop
    channel: aio.Channel
    service: kvblock_pb2_grpc.KVBlockServiceAsyncStub
    admin: admin_pb2_grpc.KVBlockAdminAsyncStub
    health: aio.UnaryUnaryMultiCallable[bytes, bytes]


class AsyncConnection:
    """One connection to one server."""

    def __init__(self, settings: Settings, interceptors: Sequence[Interceptor]) -> None:
        self._settings = settings
        self._interceptors = tuple(interceptors)
        self._made: Stubs | None = None
        self._closed = False

    @property
    def stubs(self) -> Stubs:
        """The stubs, for use in the running loop."""
        if self._closed:
            raise ClosedError(CLOSED)
        loop = asyncio.get_running_loop()
        if self._made is None:
            self._made = self._make(loop)
        elif self._made.loop is not loop:
            raise RuntimeError("this client belongs to another event loop; make one in each loop")
        return self._made

    async def call(
        self,
        method: aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        size: int = 0,
    ) -> ResponseT:
        """Carry a unary call out; `size` is the request's where that may be large."""
        error: KVBlockError
        try:
            call = method(request, timeout=timeout, metadata=self._settings.credentials.metadata)
            if timeout is not None and size > LARGE_BYTES:
                return await asyncio.wait_for(call, timeout + OVERTIME)
            return await call
        except grpc.RpcError as failed:
            error = error_of(failed, self._settings.address)
        except asyncio.TimeoutError:
            error = too_late(self._settings.address)
        except asyncio.CancelledError:
            if task_is_cancelled(self._closed):
                raise
            error = ClosedError(CLOSED)
        raise ClosedError(CLOSED) if self._closed else error

    def open_stream(self) -> Call:
        """Start a Session call."""
        return self.stubs.service.Session(metadata=self._settings.credentials.metadata)

    async def close(self) -> None:
        """End what is running and close the channel."""
        self._closed = True
        if self._made is not None:
            await self._made.channel.close()

    def _make(self, loop: asyncio.AbstractEventLoop) -> Stubs:
        target, credentials = self._settings.target, self._settings.credentials
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
