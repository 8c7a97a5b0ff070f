"""The asyncio client's connection: a channel with its stubs, and the way a call ends.

Rules:
- The channel is made in the event loop of the first call, and belongs to that loop: one client
  serves any number of tasks of it.
- Cancelling a task cancels its call; whether that was carried out is unknown then. CancelledError
  means that the task was cancelled, not that the call was.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

import grpc
from grpc import aio

from kvblock import retained
from kvblock._async.cancelling import cancellations, task_is_cancelled, within
from kvblock._async.event import StopEvent
from kvblock._async.stream import SessionStream
from kvblock._async.transport import RequestT, ResponseT, Stubs, ToldT, Transport
from kvblock.errors import ClosedError, KVBlockError, UsageError
from kvblock.failures import error_of, too_late
from kvblock.recall import Recall
from kvblock.runtime_checks import check_loop, running_loop
from kvblock.settings import CLOSED, ClientSettings, open_channel
from kvblock.stalled import GRACE_SECONDS, SendMonitor, timed_out
from kvblock.step_context import traceparent_of

Interceptor: TypeAlias = aio.ClientInterceptor


class Connection(Transport):
    """The connection of an asyncio client."""

    def __init__(self, settings: ClientSettings, interceptors: Sequence[Interceptor]) -> None:
        self.settings = settings
        self.traceparent = traceparent_of(interceptors)
        self.closed = StopEvent()
        self._interceptors = tuple(interceptors)
        self._sends = SendMonitor()
        self._made: tuple[asyncio.AbstractEventLoop, aio.Channel, Stubs] | None = None
        retained.register(self)

    @property
    def stubs(self) -> Stubs:
        """The stubs, for use in the running loop."""
        if self.closed.is_set():
            raise ClosedError(CLOSED)
        self.check_caller()
        if self._made is None:
            check_loop()
            channel = open_channel(
                self.settings,
                aio.insecure_channel,
                aio.secure_channel,
                interceptors=self._interceptors,
            )
            self._made = running_loop(), channel, Stubs.of(channel)
        return self._made[2]

    def check_caller(self) -> None:
        """See whether the client is used in its process and in its event loop.

        Raises:
            UsageError: there is no loop, or it is not that of the first call; or this is another
                process than the client's.

        """
        self.settings.owner.check()
        loop = running_loop()
        if self._made is not None and self._made[0] is not loop:
            raise UsageError(
                "this client and its sessions belong to another event loop; make a client in each"
            )

    def callback(self, call: Callable[[ToldT], None]) -> Callable[[ToldT], None]:
        """What any thread may call to have `call` called in the running loop."""
        loop = asyncio.get_running_loop()

        def call_in_loop(told: ToldT) -> None:
            # When the loop is closed there is nothing left to report to.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(call, told)

        return call_in_loop

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
        may_block = self._sends.begin(size)
        late: bool | None = None
        error: KVBlockError
        try:
            call = method(request, timeout=timeout, metadata=self.settings.credentials.metadata)
            if timeout is None or not may_block:
                answer = await call
            else:
                answer = await within(timeout + GRACE_SECONDS, call)
        except grpc.RpcError as failed:
            error = error_of(failed, self.settings.address)
            late = timed_out(error)
        except asyncio.TimeoutError:
            error = too_late(self.settings.address)
            late = True
        except asyncio.CancelledError:
            if task_is_cancelled(before, self.closed.is_set()):
                raise
            error = ClosedError(CLOSED)
        else:
            late = False
            return answer
        finally:
            self._sends.end(size, late)
        raise ClosedError(CLOSED) if self.closed.is_set() else error

    async def pause(self, stop: StopEvent, seconds: float) -> None:
        """Wait before the next try, until `stop` is set at the latest."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(seconds, stop.wait())

    def open_stream(self, recall: Recall | None) -> SessionStream:
        """Start a Session call; `recall` gets what comes unasked, None: nothing does."""
        call = self.stubs.service.Session(metadata=self.settings.credentials.metadata)
        return SessionStream(call, self._sends, recall)

    async def close(self) -> None:
        """End what is running and close the channel."""
        self.closed.set()
        if self._made is not None:
            await self._made[1].close()
