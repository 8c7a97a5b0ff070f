"""The synchronous client's connection: a channel with its stubs, and the way a call ends.

Rules:
- Threads may share it.
- Every failure of a call comes out as a KVBlockError.
- Whoever owns it closes it when it is forgotten, but not at interpreter exit: a channel whose calls
  have ended needs nothing then, and closing one whose calls have not would wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias, TypeVar

import grpc

from kvblock.errors import ClosedError, KVBlockError
from kvblock.failures import error_of, too_late
from kvblock.frozen import LARGE_BYTES, OVERTIME, close_in_time
from kvblock.health import CHECK
from kvblock.settings import CHANNEL_OPTIONS, CLOSED, Settings
from kvblock.sync_stream import Call
from kvblock.v1 import admin_pb2_grpc, kvblock_pb2_grpc
from kvblock.v1 import kvblock_pb2 as pb

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
Interceptor: TypeAlias = grpc.UnaryUnaryClientInterceptor | grpc.StreamStreamClientInterceptor


class SyncConnection:
    """One connection to one server."""

    def __init__(self, settings: Settings, interceptors: Sequence[Interceptor]) -> None:
        self._address = settings.address
        self._closed = False
        credentials = settings.credentials
        options = (*CHANNEL_OPTIONS, *credentials.options)
        self._metadata = credentials.metadata
        if credentials.channel is None:
            self._channel = grpc.insecure_channel(settings.target, options)
        else:
            self._channel = grpc.secure_channel(settings.target, credentials.channel, options)
        channel = self._channel
        if interceptors:
            channel = grpc.intercept_channel(channel, *interceptors)
        self.service = kvblock_pb2_grpc.KVBlockServiceStub(channel)
        self.admin = admin_pb2_grpc.KVBlockAdminStub(channel)
        self.health: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        size: int = 0,
    ) -> ResponseT:
        """Carry a unary call out; `size` is the request's where that may be large."""
        if self._closed:
            raise ClosedError(CLOSED)
        error: KVBlockError
        try:
            if timeout is not None and size > LARGE_BYTES:
                future = method.future(request, timeout=timeout, metadata=self._metadata)
                return future.result(timeout + OVERTIME)
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as failed:
            error = error_of(failed, self._address)
        except grpc.FutureTimeoutError:
            error = too_late(self._address)
        raise ClosedError(CLOSED) if self._closed else error

    def open_stream(self, messages: Iterator[pb.SessionRequest]) -> Call:
        """Start a Session call."""
        if self._closed:
            raise ClosedError(CLOSED)
        return self.service.Session(messages, metadata=self._metadata)

    def close(self) -> None:
        """End what is running and close the channel."""
        if not self._closed:
            self._closed = True
            close_in_time(self._channel.close)
