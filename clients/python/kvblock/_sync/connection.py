"""The synchronous client's connection: a channel with its stubs, and the way a call ends.

Rules:
- Threads may share it.
- It is that of the client and of the sessions and leases which the client makes. One that is
  forgotten closes its channel when the last of them is collected, but not at interpreter exit,
  where closing it may wait for ever: see `kvblock.retained`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import grpc

from kvblock import retained
from kvblock._sync.event import StopEvent
from kvblock._sync.stream import SessionStream
from kvblock._sync.transport import RequestT, ResponseT, Stubs, ToldT, Transport
from kvblock.errors import ClosedError, KVBlockError
from kvblock.failures import error_of, too_late
from kvblock.recall import Recall
from kvblock.runtime_checks import check_threads
from kvblock.settings import CLOSED, ClientSettings, open_channel
from kvblock.stalled import GRACE_SECONDS, SendMonitor, close_in_time, timed_out
from kvblock.step_context import traceparent_of

Interceptor: TypeAlias = grpc.UnaryUnaryClientInterceptor | grpc.StreamStreamClientInterceptor


class Connection(Transport):
    """The connection of a synchronous client."""

    def __init__(self, settings: ClientSettings, interceptors: Sequence[Interceptor]) -> None:
        check_threads()
        self.settings = settings
        self.traceparent = traceparent_of(interceptors)
        self.closed = StopEvent()
        self._sends = SendMonitor()
        self._metadata = settings.credentials.metadata
        self._channel = open_channel(settings, grpc.insecure_channel, grpc.secure_channel)
        channel = self._channel
        self._forgotten = settings.owner.finalize(self, lambda: close_in_time(channel.close))
        self._forgotten.atexit = False
        retained.register(self)
        if interceptors:
            channel = grpc.intercept_channel(channel, *interceptors)
        self._stubs = Stubs.of(channel)

    @property
    def stubs(self) -> Stubs:
        """The stubs."""
        return self._stubs

    def check_caller(self) -> None:
        """Raises UsageError in another process than the client's."""
        self.settings.owner.check()

    def callback(self, call: Callable[[ToldT], None]) -> Callable[[ToldT], None]:
        """The function itself: it is called in the thread that has something to tell."""
        return call

    def once(
        self,
        method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        size: int = 0,
    ) -> ResponseT:
        """Send a call a single time."""
        self.settings.owner.check()
        may_block = self._sends.begin(size)
        late: bool | None = None
        error: KVBlockError
        try:
            with self._while_open():
                if timeout is None or not may_block:
                    answer = method(request, timeout=timeout, metadata=self._metadata)
                else:
                    future = method.future(request, timeout=timeout, metadata=self._metadata)
                    answer = future.result(timeout + GRACE_SECONDS)
        except grpc.RpcError as failed:
            error = error_of(failed, self.settings.address)
            late = timed_out(error)
        except grpc.FutureTimeoutError:
            error = too_late(self.settings.address)
            late = True
        else:
            late = False
            return answer
        finally:
            self._sends.end(size, late)
        raise ClosedError(CLOSED) if self.closed.is_set() else error

    def pause(self, stop: StopEvent, seconds: float) -> None:
        """Wait before the next try, until `stop` is set at the latest.

        A connection is made only while a thread waits in gRPC: with its usual poller a channel
        whose calls fail at once may take five seconds to notice what became of one.
        """
        if self.closed.is_set():
            stop.wait(seconds)
            return
        with self._while_open():
            self._channel.subscribe(_ignore)
        try:
            stop.wait(seconds)
        finally:
            self._channel.unsubscribe(_ignore)

    def open_stream(self, recall: Recall | None) -> SessionStream:
        """Start a Session call; `recall` gets what comes unasked, None: nothing does."""
        session = self._stubs.service.Session
        with self._while_open():
            return SessionStream(
                lambda requests: session(requests, metadata=self._metadata), self._sends, recall
            )

    def close(self) -> None:
        """End what is running and close the channel."""
        self.closed.set()
        if self._forgotten.detach() is not None:
            close_in_time(self._channel.close)

    @contextmanager
    def _while_open(self) -> Iterator[None]:
        """Raises ClosedError when the connection is closed, also if another thread does so now."""
        self.settings.owner.check()
        check_threads()
        if self.closed.is_set():
            raise ClosedError(CLOSED)
        try:
            yield
        except ValueError:
            # What gRPC raises for a channel that is closed.
            if self.closed.is_set():
                raise ClosedError(CLOSED) from None
            raise


def _ignore(_: grpc.ChannelConnectivity) -> None:
    """The state of a channel is watched for the sake of the watching."""
